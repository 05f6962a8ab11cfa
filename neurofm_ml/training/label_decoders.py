"""Label decoders: an encoder of any family, and a linear readout of its pooled latents for each label task of a dataset.

Shapes: B windows, L latents, D width, K classes (1 for a number).
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurofm_ml.data.batches import Collate, neural_signals, readable
from neurofm_ml.data.loader import Loader
from neurofm_ml.data.recordings import load_card
from neurofm_ml.data.scaler import Scaler
from neurofm_ml.nn.pooling import pooled
from neurofm_ml.presets import RECIPES
from neurofm_ml.training.checkpoints import load_weights, save_weights
from neurofm_ml.training.saved import built, described
from neurofm_ml.types import Batch, Latents

Scale = tuple[float, float]


def pool(latents: Latents) -> Tensor:
    """(B, D) mean of the valid latents of each window. Not their spread: dropout would make it another number in training."""
    return pooled(latents.values, latents.mask)


class LabelDecoder(nn.Module):
    """Scores of each class, or the number, of every label task.

    classes: task -> its classes, none for a number; scales: task -> mean and deviation of the number over training windows.
    """

    def __init__(self, encoder: Any, classes: Mapping[str, tuple[str, ...]], scales: Mapping[str, Scale]) -> None:
        super().__init__()
        self.encoder, self.classes, self.scales = encoder, dict(classes), dict(scales)
        width = encoder.cfg.d_model
        self.norm = nn.BatchNorm1d(width, affine=False)
        self.readout = nn.ModuleDict({task: nn.Linear(width, max(1, len(names))) for task, names in classes.items()})

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """task -> (B, K) log-odds of classes, or (B, 1) the number as z-score."""
        features = self.norm(pool(self.encoder.encode(batch)))
        return {task: readout(features) for task, readout in self.readout.items()}


def label_loss(model: LabelDecoder, batch: Batch, *_: object) -> tuple[Tensor, dict[str, Tensor]]:
    """Cross-entropy of classes and squared error of numbers, over the windows whose label is known."""
    parts = {task: _task_loss(model, task, guess, batch.labels[task]) for task, guess in model(batch).items() if task in batch.labels}
    return torch.stack(list(parts.values())).mean(), parts


def _task_loss(model: LabelDecoder, task: str, guess: Tensor, label: Tensor) -> Tensor:
    if model.classes[task]:
        known = label >= 0
        return F.cross_entropy(guess, label.clamp(min=0), reduction="none")[known].sum() / known.sum().clamp(min=1)
    known, (mean, std) = label.isfinite(), model.scales[task]
    return ((guess[:, 0] - (label - mean) / std)[known].square().sum()) / known.sum().clamp(min=1)


@torch.no_grad()
def mean_loss(model: LabelDecoder, shards: Path, scaler: Scaler, split: str) -> float:
    """The loss over a split, each batch of windows counting for as many as it has."""
    losses = [
        (len(batch.rows), label_loss(model.eval(), batch)[0].item()) for batch in windows(model.encoder, shards, scaler, split).epoch()
    ]
    return sum(n * loss for n, loss in losses) / sum(n for n, _ in losses)


@torch.no_grad()
def answers(model: LabelDecoder, shards: Path, scaler: Scaler, split: str) -> Iterator[tuple[Batch, dict[str, Tensor]]]:
    """Batches of a split with what the decoder says: class probabilities (B, K), or the number (B, 1) in its own unit."""
    for batch in windows(model.encoder, shards, scaler, split).epoch():
        said = {}
        for task, guess in model.eval()(batch).items():
            mean, std = model.scales.get(task, (0.0, 1.0))
            said[task] = guess.softmax(1) if model.classes[task] else guess * std + mean
        yield batch, said


def windows(encoder: Any, shards: Path, scaler: Scaler, split: str, batch_size: int = 64, seed: int = 0) -> Loader:
    """The windows of a split that the encoder can read."""
    modalities = modalities_of(encoder)
    collate = Collate([shards], encoder.vocabulary, scaler, signals=neural_signals(load_card(shards), modalities))
    return Loader([shards], split=split, batch_size=batch_size, seed=seed, where=readable(shards, modalities), collate=collate)


def modalities_of(encoder: Any) -> tuple[str, ...]:
    """What models of its family read."""
    return RECIPES[described(encoder)["family"]].modalities


def save_label_decoder(folder: Path, model: LabelDecoder) -> None:
    """Weights of encoder and readouts, and what is needed to build them again."""
    about = {**described(model.encoder), "classes": model.classes, "scales": model.scales}
    save_weights(folder, model.state_dict(), about)


def load_label_decoder(folder: Path) -> LabelDecoder:
    """The decoder saved in `folder`, in eval mode. Raises ValueError when it is damaged."""
    weights, about = load_weights(folder)
    classes = {task: tuple(names) for task, names in about["classes"].items()}
    model = LabelDecoder(built(about), classes, {task: (mean, std) for task, (mean, std) in about["scales"].items()})
    model.load_state_dict(weights)
    return model.eval()
