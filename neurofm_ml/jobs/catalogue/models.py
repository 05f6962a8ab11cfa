"""Jobs of the models group: checkpoints.

Imports stand inside: a process that only plans work must not pay for torch.
"""

from functools import partial
from pathlib import Path
from typing import Any

from neurofm_ml import presets
from neurofm_ml.jobs.spec import Inputs, claims, job
from neurofm_ml.types import Report

#: Families whose training makes claims of its own.
OWN_CLAIMS = {"brain_jepa": ("no_collapse",)}


def pretrain(family: str, cfg: Any, inputs: Inputs, out: Path) -> Report:
    """Shards and scalers -> pretrained checkpoint."""
    from neurofm_ml.training.pretrain import pretrain

    return pretrain(family, cfg, inputs["shards"], inputs["scaler"], out)


for _family, _recipe in presets.RECIPES.items():
    job(
        f"pretrain_{_family}",
        _recipe.config,
        "2",
        checks=claims("loss_is_finite", *OWN_CLAIMS.get(_family, ()), warn=("loss_fell", "resume_is_exact")),
        resumes=True,
        shared=lambda cfg: cfg.train.strategy != "single",
    )(partial(pretrain, _family))


@job("adapt", presets.AdaptConfig, "1", checks=claims("loss_is_finite"), resumes=True, shared=lambda cfg: True)
def adapt(cfg: presets.AdaptConfig, inputs: Inputs, out: Path) -> Report:
    """Pretrained checkpoint and labelled shards -> fine-tuned decoders, one per recording."""
    from neurofm_ml.training.adapt import adapt

    return adapt(cfg, inputs["pretrained"][0], inputs["shards"], inputs["scaler"], out)


@job("adapt_labels", presets.AdaptLabelsConfig, "3", checks=claims("loss_is_finite"), resumes=True, shared=lambda cfg: True)
def adapt_labels(cfg: presets.AdaptLabelsConfig, inputs: Inputs, out: Path) -> Report:
    """Pretrained checkpoint of any family and shards with label tasks -> a decoder per dataset."""
    from neurofm_ml.training.adapt_labels import adapt_labels

    return adapt_labels(cfg, inputs["pretrained"][0], inputs["shards"], inputs["scaler"], out)


@job("continual", presets.ContinualConfig, "1", checks=claims("decodes_are_finite", warn=("elastic_forgets_less",)), resumes=True)
def continual(cfg: presets.ContinualConfig, inputs: Inputs, out: Path) -> Report:
    """Pretrained checkpoint and labelled shards -> checkpoint that learned the recordings in turn, and what it forgot."""
    from neurofm_ml.training.continual import continual

    return continual(cfg, inputs["pretrained"][0], inputs["shards"], inputs["scaler"], out)


@job("meta_train", presets.MetaConfig, "1", checks=claims("loss_is_finite", warn=("loss_fell",)), resumes=True)
def meta_train(cfg: presets.MetaConfig, inputs: Inputs, out: Path) -> Report:
    """Pretrained checkpoint and labelled shards -> checkpoint that new recordings are learned from in few updates."""
    from neurofm_ml.training.meta import meta_train

    return meta_train(cfg, inputs["pretrained"][0], inputs["shards"], inputs["scaler"], out)


@job("distill", presets.DistillConfig, "1", checks=claims("loss_is_finite", warn=("loss_fell",)), resumes=True)
def distill(cfg: presets.DistillConfig, inputs: Inputs, out: Path) -> Report:
    """Larger pretrained checkpoint and shards -> smaller checkpoint that does as it does."""
    from neurofm_ml.training.distill import distill

    return distill(cfg, inputs["pretrained"][0], inputs["shards"], inputs["scaler"], out)
