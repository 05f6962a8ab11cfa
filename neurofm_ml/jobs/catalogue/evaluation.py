"""Jobs of the evaluation group: baselines and scores.

Imports stand inside: a process that only plans work must not pay for torch.
"""

from pathlib import Path

from neurofm_ml import presets
from neurofm_ml.jobs.spec import Inputs, claims, job
from neurofm_ml.types import Report


@job("fit_baselines", presets.BaselinesConfig, "1", checks=claims(warn=("controls_at_chance",)), resumes=True)
def fit_baselines(cfg: presets.BaselinesConfig, inputs: Inputs, out: Path) -> Report:
    """Labelled shards of one dataset -> predictions and scores of the tuned baselines."""
    from neurofm_ml.evaluation.baselines import fit_baselines

    return fit_baselines(cfg, inputs["shards"][0], inputs["scaler"], out)


@job("score", presets.ScoreConfig, "2", checks=claims("table_is_valid", warn=("controls_at_chance",)))
def score(cfg: presets.ScoreConfig, inputs: Inputs, out: Path) -> Report:
    """Pretrained and adapted checkpoints, labelled shards, baselines -> the scores table."""
    from neurofm_ml.evaluation.score import score

    return score(cfg, inputs["pretrained"][0], inputs["adapted"][0], inputs["shards"], inputs["scaler"], inputs["baselines"], out)
