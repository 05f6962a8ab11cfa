"""Baselines of series, forecasts and reconstructions, and the job that fits every baseline of a dataset."""
