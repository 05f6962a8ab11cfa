"""The leakage audit of a run: `audit` is the job, `standardiser_offsets` judges anything that was fitted."""

from neurofm_ml.evaluation.audit.job import audit
from neurofm_ml.evaluation.audit.scalers import standardiser_offsets

__all__ = ["audit", "standardiser_offsets"]
