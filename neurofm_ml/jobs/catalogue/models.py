"""Jobs of the models group: checkpoints.

Imports stand inside: a process that only plans work must not pay for torch.
"""

from pathlib import Path

from neurofm_ml import presets
from neurofm_ml.jobs.spec import Inputs, claims, job
from neurofm_ml.types import Report


@job(
    "pretrain",
    presets.PretrainConfig,
    "1",
    checks=claims("loss_is_finite", warn=("loss_fell",)),
    resumes=True,
    shared=lambda cfg: cfg.train.strategy != "single",
)
def pretrain(cfg: presets.PretrainConfig, inputs: Inputs, out: Path) -> Report:
    """Shards and scalers -> pretrained checkpoint."""
    from neurofm_ml.training.pretrain import pretrain

    return pretrain("neurofmx", cfg, inputs["shards"], inputs["scaler"], out)


@job("adapt", presets.AdaptConfig, "1", checks=claims("loss_is_finite"), resumes=True, shared=lambda cfg: True)
def adapt(cfg: presets.AdaptConfig, inputs: Inputs, out: Path) -> Report:
    """Pretrained checkpoint and labelled shards -> fine-tuned decoders, one per recording."""
    from neurofm_ml.training.adapt import adapt

    return adapt(cfg, inputs["pretrained"][0], inputs["shards"], inputs["scaler"], out)
