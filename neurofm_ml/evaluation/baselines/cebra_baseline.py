"""CEBRA (Schneider et al. 2023), the package itself: a contrastive embedding told of behaviour, read by nearest neighbours.

Its recommended settings, but for a learning rate ten times theirs, which does better within so few updates
(benchmarks/embedding_cebra.py). Shapes: T bins, N channels, K target columns, E outputs.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import torch

from neurofm_ml.evaluation.baselines.knn import best_k, neighbours
from neurofm_ml.evaluation.tasks.tasks import Blocks, DecodingData
from neurofm_ml.types import Array

#: What is tuned on the validation block: outputs and temperature.
SETTINGS = ({"output_dimension": 3, "temperature": 1.0}, {"output_dimension": 16, "temperature": 0.1})


@dataclass(frozen=True, eq=False)
class CebraFit:
    """The embedding, and the training bins in it: seen (T, E), y (T, K)."""

    model: Any
    k: int
    mean: Array
    std: Array
    seen: Array
    y: Array

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.model.solver_.model.parameters())

    def predict(self, x: Array) -> Array:
        """(T, K) from features (T, N)."""
        guess: Array = self.y[neighbours(self.seen, self.embed(x), self.k)].mean(1)
        return guess

    def embed(self, x: Array) -> Array:
        """(T, E) of features (T, N)."""
        embedded: Array = self.model.transform(_scaled(x, self.mean, self.std))
        return embedded


def fit_cebra(data: DecodingData, features: Blocks, updates: int, seed: int) -> CebraFit:
    """Fitted on the training block in `updates`, shared among the settings; they and k have the best mean R2 on validation."""
    tried = [_fit(data, features, setting, updates // len(SETTINGS), seed) for setting in SETTINGS]
    return max(tried, key=lambda scored: scored[0])[1]


def _fit(data: DecodingData, features: Blocks, setting: Mapping[str, Any], updates: int, seed: int) -> tuple[float, CebraFit]:
    """The mean R2 on validation, and the fit."""
    known = data.known["train"]
    x, y = features["train"][known], data.y["train"][known]
    mean, std = x.mean(0), x.std(0)
    model = embedding(_scaled(x, mean, std), y.astype(np.float32), setting, updates, seed)
    seen, query = (model.transform(_scaled(v, mean, std)) for v in (x, features["validation"]))
    score, k = best_k(data, seen, query)
    return score, CebraFit(model, k, mean, std, seen, y)


def embedding(x: Array, y: Array, setting: Mapping[str, Any], updates: int, seed: int) -> Any:
    """A fitted `cebra.CEBRA` of scaled activity x (T, N), told of behaviour y (T, K)."""
    import cebra

    with _seeded(seed):
        return cebra.CEBRA(
            model_architecture="offset10-model",
            batch_size=512,
            distance="cosine",
            conditional="time_delta",
            time_offsets=10,
            learning_rate=3e-3,
            max_iterations=updates,
            device="cpu",
            **setting,
        ).fit(x, y)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Weights are drawn from torch's generator. Batches come from generators that CEBRA 0.6.1 seeds at random, whatever it is told: in
    here they are seeded."""
    from cebra.distributions.base import HasGenerator

    def init(self: Any, **given: Any) -> None:
        as_it_was(self, **given)
        self._seed = seed
        self.generator.manual_seed(seed)

    as_it_was = HasGenerator.__init__
    with torch.random.fork_rng([]), mock.patch.object(HasGenerator, "__init__", init):
        torch.manual_seed(seed)
        yield


def _scaled(x: Array, mean: Array, std: Array) -> Array:
    scaled: Array = ((x - mean) / np.where(std > 0, std, 1.0)).astype(np.float32)
    return scaled
