"""What exists, when, where: the Dagster assets of NeuroFM. What is computed is in `neurofm_ml`."""
