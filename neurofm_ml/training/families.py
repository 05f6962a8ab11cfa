"""What a family of models brings to pretraining: what it reads, how it is built, what it is trained for, what it claims."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from neurofm_ml.data.batches import Collate, Vocabulary
from neurofm_ml.data.mixture import Mixture
from neurofm_ml.data.scaler import Scaler
from neurofm_ml.registry import Registry
from neurofm_ml.training.history import History
from neurofm_ml.training.loop import LossFunction, ResumableIterable
from neurofm_ml.training.sampling import evenly, mixture, whole
from neurofm_ml.types import Check


@dataclass(frozen=True)
class Family:
    """One family; every function takes the family's own pretraining config first.

    modalities  that it reads
    build       (config, vocabulary, shards, scaler) -> model
    loss        config -> loss function for `fit`
    batches     (config, vocabulary, shards, scaler) -> endless batches; default: every dataset drawn equally often
    shortest_s  config -> seconds that a window must last to hold anything to read
    checks      claims about a run, beside those of the loop
    beside      (config, model) -> context in which the model is trained with more than it is published with
    """

    modalities: tuple[str, ...]
    build: Callable[[Any, Vocabulary, Sequence[Path], Scaler], nn.Module]
    loss: Callable[[Any], LossFunction]
    batches: Callable[[Any, Vocabulary, Sequence[Path], Scaler], ResumableIterable] | None = None
    shortest_s: Callable[[Any], float] = lambda cfg: 0.0
    checks: Callable[[History], tuple[Check, ...]] = lambda history: ()
    beside: Callable[[Any, nn.Module], AbstractContextManager[None]] = lambda cfg, model: nullcontext()

    def read(self, cfg: Any, vocabulary: Vocabulary, shards: Sequence[Path], scaler: Scaler) -> ResumableIterable:
        """Endless batches of the training windows that hold something to read."""
        return (self.batches or self.evenly)(cfg, vocabulary, shards, scaler)

    def evenly(self, cfg: Any, vocabulary: Vocabulary, shards: Sequence[Path], scaler: Scaler) -> Mixture:
        """The same, every dataset drawn equally often."""
        found = whole(shards, self.modalities)
        return mixture(found, evenly(found), lambda s: Collate([s.shards], vocabulary, scaler, signals=s.signals), cfg.train, cfg.seed)


FAMILIES: Registry[Family] = Registry("family")
