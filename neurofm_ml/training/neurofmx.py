"""Pretraining of NeuroFMx: masked modelling everywhere, decoding where there are tasks."""

from collections.abc import Sequence
from pathlib import Path

import torch

from neurofm_ml.data.batches import Collate, Vocabulary, build_vocabulary
from neurofm_ml.data.mixture import Mixture
from neurofm_ml.data.recordings import load_card
from neurofm_ml.data.scaler import Scaler
from neurofm_ml.models import NeuroFMx
from neurofm_ml.presets import READ, PretrainConfig
from neurofm_ml.training.families import FAMILIES, Family, mixture
from neurofm_ml.training.problems import Problem, find_problems
from neurofm_ml.training.steps import Loss, weighted_loss
from neurofm_ml.training.tuning import embed_by_tuning


def build(cfg: PretrainConfig, problems: Sequence[Problem], shards: Sequence[Path], scaler: Scaler) -> tuple[NeuroFMx, Mixture]:
    """A fresh model and its batches, the targets of a problem shown only where it is labelled."""
    vocabulary = build_vocabulary(shards)
    torch.manual_seed(cfg.seed)
    return _model(cfg, vocabulary, problems, scaler), _batches(cfg, vocabulary, problems, shards, scaler)


def _model(cfg: PretrainConfig, vocabulary: Vocabulary, problems: Sequence[Problem], scaler: Scaler) -> NeuroFMx:
    model = NeuroFMx(cfg.model, vocabulary)
    embed_by_tuning(model, problems, scaler)
    return model


def _batches(cfg: PretrainConfig, vocabulary: Vocabulary, problems: Sequence[Problem], shards: Sequence[Path], scaler: Scaler) -> Mixture:
    labelled = {f"{p.dataset}/{p.recording}": p.labelled for p in problems if p.labelled}
    collate = Collate(shards, vocabulary, scaler, labelled=labelled)
    return mixture(cfg, shards, collate, sampling_weights(shards, cfg.labelled_share))


def _problems(shards: Sequence[Path]) -> list[Problem]:
    return [problem for path in shards for problem in find_problems(path)]


def loss(cfg: PretrainConfig) -> Loss:
    """The weighted objectives of the config."""
    return weighted_loss(cfg.augment, cfg.objectives)


def sampling_weights(shards: Sequence[Path], labelled_share: float) -> dict[str, float]:
    """Dataset -> its share of the updates: equal among those with tasks, which get `labelled_share`, and among the others."""
    cards = [load_card(path) for path in shards]
    n_labelled = sum(bool(card.tasks) for card in cards)
    if n_labelled in (0, len(cards)):
        return dict.fromkeys((card.name for card in cards), 1.0)
    shares = {True: labelled_share / n_labelled, False: (1 - labelled_share) / (len(cards) - n_labelled)}
    return {card.name: shares[bool(card.tasks)] for card in cards}


def _check_objectives(cfg: PretrainConfig, shards: Sequence[Path]) -> None:
    """Refuse datasets that no objective could learn from."""
    idle = [card.name for card in map(load_card, shards) if not card.tasks]
    if idle and not cfg.objectives.get("masked"):
        raise ValueError(
            f"PretrainConfig.objectives is {cfg.objectives}, which finds nothing to learn in {', '.join(idle)}, without tasks; "
            'give "masked" a weight, or name the other datasets in `datasets`.'
        )


def _checked(cfg: PretrainConfig, vocabulary: Vocabulary, shards: Sequence[Path], scaler: Scaler) -> NeuroFMx:
    _check_objectives(cfg, shards)
    return _model(cfg, vocabulary, _problems(shards), scaler)


FAMILIES.add(
    "neurofmx",
    Family(
        READ,
        build=_checked,
        batches=lambda cfg, vocabulary, shards, scaler: _batches(cfg, vocabulary, _problems(shards), shards, scaler),
        loss=loss,
    ),
)
