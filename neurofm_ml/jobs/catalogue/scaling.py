"""Jobs that pretrain many times: searches over config leaves, scaling laws.

Imports stand inside: a process that only plans work must not pay for torch.
"""

from pathlib import Path

from neurofm_ml import presets
from neurofm_ml.jobs.spec import Inputs, claims, job
from neurofm_ml.types import Report


@job("search", presets.SearchConfig, "1", checks=claims("a_trial_ended", warn=("best_is_inside",)), resumes=True)
def search(cfg: presets.SearchConfig, inputs: Inputs, out: Path) -> Report:
    """Shards and scalers -> every trial, and the best patch of the pretraining config."""
    from neurofm_ml.training.search import search

    return search(cfg, inputs["shards"], inputs["scaler"], out)


@job("fit_scaling", presets.ScalingConfig, "1", checks=claims("loss_is_finite", warn=("loss_falls_with_size",)), resumes=True)
def fit_scaling(cfg: presets.ScalingConfig, inputs: Inputs, out: Path) -> Report:
    """Shards and scalers -> how the validation loss falls with size."""
    from neurofm_ml.training.scaling import fit_scaling

    return fit_scaling(cfg, inputs["shards"], inputs["scaler"], out)
