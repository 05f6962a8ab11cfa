"""Networks from scratch on few examples: one hidden layer, many small training sets at once.

Inputs are the principal components of all training rows, which takes no label. There is nothing to tune them on, so size and
training are fixed: what a plain network makes of so few labels.

Shapes: S sets, n rows, D components, H hidden units, K targets or classes.
"""

import numpy as np
import torch
from torch import Tensor

from neurofm_ml.evaluation.transfer.examples import Examples
from neurofm_ml.types import Array

COMPONENTS, HIDDEN = 64, 32
STEPS, LR, DECAY = 200, 1e-2, 1e-2


def components(examples: Examples) -> Array:
    """(n, D) rows along the principal directions of training rows, the first with deviation 1."""
    train = examples.x[(examples.about.split == "train").to_numpy()]
    mean = train.mean(0)
    _, sizes, directions = np.linalg.svd(train - mean, full_matrices=False)
    n = int((sizes > 1e-8 * sizes[0]).sum())
    return np.asarray((examples.x - mean) @ directions[: min(n, COMPONENTS)].T / (sizes[0] / np.sqrt(len(train))))


def fit_networks(rows: list[Array], targets: list[Array], weights: list[Array], test: Array, classes: bool, seed: int) -> Array:
    """(S, n, K) what networks say of test rows (n, D): of S sets of rows (n, D), targets (n, K) and weights of rows (n,), each its
    own network."""
    longest = max(map(len, rows))
    x, y, w = (torch.from_numpy(np.stack([_padded(part, longest) for part in parts])).float() for parts in (rows, targets, weights))
    w = w / w.sum(1, keepdim=True)
    mean = torch.zeros(len(rows), 1, y.shape[2]) if classes else torch.einsum("sn,snk->sk", w, y)[:, None]
    spread = torch.ones_like(mean) if classes else torch.einsum("sn,snk->sk", w, (y - mean) ** 2).sqrt()[:, None].clamp(min=1e-6)
    layers = _layers(len(rows), x.shape[2], y.shape[2], torch.Generator().manual_seed(seed))
    optimizer = torch.optim.AdamW(layers, lr=LR, weight_decay=DECAY)
    for _ in range(STEPS):
        optimizer.zero_grad()
        said = _forward(layers, x)
        error = -(y * said.log_softmax(2)).sum(2) if classes else (said - (y - mean) / spread).square().mean(2)
        (w * error).sum().backward()
        optimizer.step()
    with torch.no_grad():
        said = _forward(layers, torch.from_numpy(test).float().expand(len(rows), -1, -1))
        return np.asarray((said.softmax(2) if classes else said * spread + mean).double())


def _padded(part: Array, n: int) -> Array:
    return np.pad(part, [(0, n - len(part)), *[(0, 0)] * (part.ndim - 1)])


def _layers(n_sets: int, d_in: int, d_out: int, generator: torch.Generator) -> list[Tensor]:
    """Weights and shifts of both layers; all networks start alike."""
    first, second = (torch.randn(1, n, m, generator=generator) / n**0.5 for n, m in ((d_in, HIDDEN), (HIDDEN, d_out)))
    start = (first, torch.zeros(1, 1, HIDDEN), second, torch.zeros(1, 1, d_out))
    return [part.repeat(n_sets, 1, 1).requires_grad_() for part in start]


def _forward(layers: list[Tensor], x: Tensor) -> Tensor:
    first, shift, second, offset = layers
    return torch.relu(x @ first + shift) @ second + offset
