"""Training of EEGNet: the labels of windows, told apart."""

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from neurofm_ml.data.batches import Vocabulary
from neurofm_ml.data.scaler import Scaler
from neurofm_ml.models import EEGNet
from neurofm_ml.presets import EEGNetPretrainConfig
from neurofm_ml.training.families import FAMILIES, Family
from neurofm_ml.training.loop import LossFunction
from neurofm_ml.types import Batch

MODALITIES = ("eeg",)


def build(cfg: EEGNetPretrainConfig, vocabulary: Vocabulary, shards: Sequence[Path], scaler: Scaler) -> EEGNet:
    """A fresh model. Raises ValueError when some dataset has nothing to tell apart."""
    taught = {task.split("/")[0] for task, classes in vocabulary.labels.items() if classes}
    if idle := sorted({session.split("/")[0] for session in vocabulary.sessions} - taught):
        raise ValueError(
            f"EEGNet learns from labels of windows, and {', '.join(idle)} has none: give the card a task with classes, or name the other "
            "datasets in EEGNetPretrainConfig.datasets."
        )
    torch.manual_seed(cfg.seed)
    return EEGNet(cfg.model, vocabulary)


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


FAMILIES.add("eegnet", Family(MODALITIES, build, loss))
