"""The moving average of the weights that training exports."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from neurofm_ml.training.sharding import gather_kept, local


class Ema:
    """An average that follows a model's weights: ``ema <- decay * ema + (1 - decay) * weights`` per update.

    It starts as a copy. Of a model that is shared out, each process averages the share it holds. Buffers are not
    averaged, since they are already statistics.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay, self._model = decay, model
        self.restart()

    def restart(self) -> None:
        """Begin again with the weights that the model has now."""
        self._average = [weights.clone() for weights in self._weights()]

    def _weights(self) -> list[torch.Tensor]:
        return [local(p).detach() for p in self._model.parameters()]

    @torch.no_grad()
    def update(self) -> None:
        """Take one step towards the weights of the model."""
        torch._foreach_lerp_(self._average, self._weights(), 1 - self.decay)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Within, the model carries the average, in eval mode, and the average the weights."""
        self._swap()
        self._model.eval()
        try:
            yield
        finally:
            self._swap()
            self._model.train()

    @torch.no_grad()
    def _swap(self) -> None:
        for mine, theirs in zip(self._average, self._weights(), strict=True):
            kept = theirs.clone()
            theirs.copy_(mine)
            mine.copy_(kept)
        gather_kept(self._model)
