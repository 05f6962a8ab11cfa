"""Label decoders: an encoder of any family, and a linear readout of its pooled latents for each label task of a dataset.

Shapes: B windows, L latents, D width, K classes (1 for a number).
"""

import math
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

#: Weights of the squared readout weights that are tried.
PENALTIES = (0.003, 0.03, 0.3)


def pool(latents: Latents) -> Tensor:
    """(B, D) mean of the valid latents of each window. Not their spread: dropout would make it another number in training."""
    return pooled(latents.values, latents.mask)


class LabelDecoder(nn.Module):
    """Scores of each class, or the number, of every label task.

    The pooled latents are read in deviations from what they were before anything was fitted.

    classes: task -> its classes, none for a number; scales: task -> mean and deviation of the number over training windows.
    """

    centre: Tensor
    spread: Tensor

    def __init__(self, encoder: Any, classes: Mapping[str, tuple[str, ...]], scales: Mapping[str, Scale]) -> None:
        super().__init__()
        self.encoder, self.classes, self.scales = encoder, dict(classes), dict(scales)
        width = encoder.cfg.d_model
        self.register_buffer("centre", torch.zeros(width))
        self.register_buffer("spread", torch.ones(width))
        self.readout = nn.ModuleDict({task: nn.Linear(width, max(1, len(names))) for task, names in classes.items()})

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """task -> (B, K) log-odds of classes, or (B, 1) the number as z-score."""
        return self.read(pool(self.encoder.encode(batch)))

    def read(self, features: Tensor) -> dict[str, Tensor]:
        """The same from pooled latents (B, D)."""
        z = (features - self.centre) / self.spread
        return {task: readout(z) for task, readout in self.readout.items()}

    def losses(self, guesses: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Cross-entropy of classes and squared error of numbers, over the windows whose label (B,) is known."""
        return {task: self._loss(task, guess, labels[task]) for task, guess in guesses.items() if task in labels}

    def _loss(self, task: str, guess: Tensor, label: Tensor) -> Tensor:
        if self.classes[task]:
            known = label >= 0
            return F.cross_entropy(guess, label.clamp(min=0), reduction="none")[known].sum() / known.sum().clamp(min=1)
        known, (mean, std) = label.isfinite(), self.scales[task]
        return (guess[:, 0] - (label - mean) / std)[known].square().sum() / known.sum().clamp(min=1)


def label_loss(model: LabelDecoder, batch: Batch, *_: object) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean over the tasks of a batch."""
    parts = model.losses(model(batch), batch.labels)
    return torch.stack(list(parts.values())).mean(), parts


def fit_readout(model: LabelDecoder, shards: Path, scaler: Scaler) -> float:
    """Fit the readouts to pooled latents of the training windows, the encoder as it is; gives the validation loss.

    Logistic and ridge regression of standardised latents; of `PENALTIES`, that with the smallest validation loss is kept.
    """
    (features, labels), (held_out, held_labels) = (encoded(model, shards, scaler, split) for split in ("train", "validation"))
    model.centre.copy_(features.mean(0))
    model.spread.copy_(features.std(0) + 1e-6)
    best, least = model.readout.state_dict(), math.inf
    for penalty in PENALTIES:
        _regress(model, features, labels, penalty)
        with torch.no_grad():
            loss = float(torch.stack(list(model.losses(model.read(held_out), held_labels).values())).mean())
        if loss < least:
            best, least = {name: value.clone() for name, value in model.readout.state_dict().items()}, loss
    model.readout.load_state_dict(best)
    return least


def _regress(model: LabelDecoder, features: Tensor, labels: Mapping[str, Tensor], penalty: float) -> None:
    optimizer = torch.optim.LBFGS(model.readout.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        fit = torch.stack(list(model.losses(model.read(features), labels).values())).sum()
        loss: Tensor = fit + penalty * torch.stack([p.square().sum() for p in model.readout.parameters() if p.ndim > 1]).sum()
        loss.backward()
        return loss

    optimizer.step(closure)


@torch.no_grad()
def encoded(model: LabelDecoder, shards: Path, scaler: Scaler, split: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Pooled latents (n, D) of the windows of a split, and the labels (n,) of each task."""
    model.eval()
    batches = [(pool(model.encoder.encode(b)), b.labels) for b in windows(model.encoder, shards, scaler, split).epoch()]
    return torch.cat([f for f, _ in batches]), {task: torch.cat([known[task] for _, known in batches]) for task in model.classes}


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
