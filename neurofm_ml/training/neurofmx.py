"""Pretraining of NeuroFMx: masked modelling everywhere, decoding where there are tasks."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from neurofm_ml.data.batches import Collate, Vocabulary, build_vocabulary
from neurofm_ml.data.domains import domains_of
from neurofm_ml.data.mixture import Mixture
from neurofm_ml.data.recordings import load_card
from neurofm_ml.data.scaler import Scaler
from neurofm_ml.models import NeuroFMx
from neurofm_ml.presets import RECIPES, PretrainConfig, StageConfig
from neurofm_ml.training.curriculum import Curriculum, staged
from neurofm_ml.training.families import FAMILIES, Family
from neurofm_ml.training.loop import ResumableIterable
from neurofm_ml.training.problems import Problem, find_problems
from neurofm_ml.training.sampling import groups, mixture, sources
from neurofm_ml.training.steps import Loss, weighted_loss
from neurofm_ml.training.tuning import embed_by_tuning
from neurofm_ml.training.weighting import balanced


def build(cfg: PretrainConfig, problems: Sequence[Problem], shards: Sequence[Path], scaler: Scaler) -> tuple[NeuroFMx, ResumableIterable]:
    """A fresh model and its batches, the targets of a problem shown only where it is labelled."""
    vocabulary = build_vocabulary(shards)
    torch.manual_seed(cfg.seed)
    return _model(cfg, vocabulary, problems, shards, scaler), _batches(cfg, vocabulary, problems, shards, scaler)


def _model(cfg: PretrainConfig, vocabulary: Vocabulary, problems: Sequence[Problem], shards: Sequence[Path], scaler: Scaler) -> NeuroFMx:
    model = NeuroFMx(cfg.model, _told_apart(cfg, vocabulary, shards))
    embed_by_tuning(model, problems, scaler)
    return model


def _told_apart(cfg: PretrainConfig, vocabulary: Vocabulary, shards: Sequence[Path]) -> Vocabulary:
    """The vocabulary with the domains that a discriminator tells apart, where one is trained."""
    return dataclasses.replace(vocabulary, domains=domains_of(shards)) if "domains" in objectives(cfg) else vocabulary


def _batches(
    cfg: PretrainConfig, vocabulary: Vocabulary, problems: Sequence[Problem], shards: Sequence[Path], scaler: Scaler
) -> ResumableIterable:
    labelled = {f"{p.dataset}/{p.recording}": p.labelled for p in problems if p.labelled}
    side = not {"contrastive", "trimodal"}.isdisjoint(objectives(cfg))
    collate = partial(Collate, vocabulary=_told_apart(cfg, vocabulary, shards), scaler=scaler, labelled=labelled, side=side)
    found = [sources(shards, stage) for stage in _stages(cfg)]

    def drawn(stage: int) -> Mixture:
        weights = groups(found[stage], cfg.sampling, cfg.labelled_share)
        return mixture(found[stage], weights, lambda s: collate([s.shards], signals=s.signals), cfg.train, cfg.seed + stage)

    return Curriculum(cfg.curriculum, [partial(drawn, k) for k in range(len(found))], cfg.train.accumulate) if cfg.curriculum else drawn(0)


def _stages(cfg: PretrainConfig) -> tuple[StageConfig, ...]:
    """The stages of the curriculum; without one, the single stage that the whole run is."""
    return cfg.curriculum or (StageConfig(kind="multimodal", objectives=cfg.objectives),)


def objectives(cfg: PretrainConfig) -> list[str]:
    """Names of all objectives that some stage learns from."""
    return list(dict.fromkeys(name for stage in _stages(cfg) for name, weight in stage.objectives.items() if weight))


def _problems(shards: Sequence[Path]) -> list[Problem]:
    return [problem for path in shards for problem in find_problems(path)]


def loss(cfg: PretrainConfig) -> Loss:
    """The weighted objectives of the config, or of each stage of its curriculum."""
    if not cfg.curriculum:
        return weighted_loss(cfg.augment, cfg.objectives, cfg.weighting)
    return staged([weighted_loss(cfg.augment, stage.objectives, cfg.weighting, stage.fusion) for stage in cfg.curriculum])


def _check_objectives(cfg: PretrainConfig, shards: Sequence[Path]) -> None:
    """Refuse datasets that no objective could learn from."""
    idle = [card.name for card in map(load_card, shards) if not card.series_tasks]
    for stage in _stages(cfg):
        if idle and {name for name, weight in stage.objectives.items() if weight} == {"behaviour"}:
            raise ValueError(
                f"PretrainConfig.objectives is {stage.objectives}, which finds nothing to learn in {', '.join(idle)}, without tasks; "
                'give "masked" a weight, or name the other datasets in `datasets`.'
            )


def _checked(cfg: PretrainConfig, vocabulary: Vocabulary, shards: Sequence[Path], scaler: Scaler) -> NeuroFMx:
    _check_objectives(cfg, shards)
    return _model(cfg, vocabulary, _problems(shards), shards, scaler)


FAMILIES.add(
    "neurofmx",
    Family(
        RECIPES["neurofmx"].modalities,
        build=_checked,
        batches=lambda cfg, vocabulary, shards, scaler: _batches(cfg, vocabulary, _problems(shards), shards, scaler),
        loss=loss,
        beside=lambda cfg, model: balanced(model, cfg.weighting, objectives(cfg)),
    ),
)
