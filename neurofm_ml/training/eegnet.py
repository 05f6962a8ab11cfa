"""Training of EEGNet: the labels of windows, told apart."""

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from neurofm_ml.data.batches import Vocabulary
from neurofm_ml.data.recordings import load_card
from neurofm_ml.data.scaler import Scaler
from neurofm_ml.models import EEGNet
from neurofm_ml.presets import RECIPES, EEGNetPretrainConfig
from neurofm_ml.training.families import FAMILIES, Family
from neurofm_ml.training.loop import LossFunction, ResumableIterable
from neurofm_ml.types import Batch

log = logging.getLogger(__name__)


def build(cfg: EEGNetPretrainConfig, vocabulary: Vocabulary, shards: Sequence[Path], scaler: Scaler) -> EEGNet:
    """A fresh model. Raises ValueError when there is nothing to tell apart."""
    if not any(vocabulary.labels.values()):
        datasets = ", ".join(dict.fromkeys(session.split("/")[0] for session in vocabulary.sessions))
        raise ValueError(
            f"EEGNet learns from labels of windows, and {datasets} has none: give a card a task with classes, or name other datasets in "
            "EEGNetPretrainConfig.datasets."
        )
    torch.manual_seed(cfg.seed)
    return EEGNet(cfg.model, vocabulary)


def batches(cfg: EEGNetPretrainConfig, vocabulary: Vocabulary, shards: Sequence[Path], scaler: Scaler) -> ResumableIterable:
    """Every dataset that has classes drawn equally often; the others are left out by name."""
    cards = {load_card(path).name: path for path in shards}
    taught = {task.split("/")[0] for task, classes in vocabulary.labels.items() if classes}
    if idle := sorted(set(cards) - taught):
        log.warning("left out of training, without classes to tell apart: %s", ", ".join(idle))
    return FAMILIES["eegnet"].evenly(cfg, vocabulary, [path for name, path in cards.items() if name in taught], scaler)


def loss(cfg: EEGNetPretrainConfig) -> LossFunction:
    """Cross-entropy of every task over the windows whose label is known."""
    return cross_entropy


def cross_entropy(model: EEGNet, batch: Batch, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean over the tasks of the batch; a task none of whose labels is known adds 0."""
    parts = {}
    for task, logits in model(batch).items():
        labels = batch.labels[task]
        total = F.cross_entropy(logits, labels, ignore_index=-1, reduction="sum")
        parts[task] = total / (labels >= 0).sum().clamp(min=1)
    return torch.stack(list(parts.values())).mean(), parts


FAMILIES.add("eegnet", Family(RECIPES["eegnet"].modalities, build, loss, batches))
