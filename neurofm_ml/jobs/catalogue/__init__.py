"""All jobs, one file per asset group; importing this fills JOBS."""

from neurofm_ml.jobs.catalogue import data, evaluation, models, release, scaling

__all__ = ["data", "evaluation", "models", "release", "scaling"]
