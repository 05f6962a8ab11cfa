"""A curriculum: stages of batches, each with its own sources, objectives and fusion, that follow one another.

Where a run stands in it is a part of the cursor of its batches, and so of every checkpoint. The stage of a batch is
logged with its loss, as "stage", counted from 1.
"""

import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from neurofm_ml.config import to_dict
from neurofm_ml.presets import StageConfig
from neurofm_ml.training.loop import ResumableIterable
from neurofm_ml.training.steps import Loss

log = logging.getLogger(__name__)

#: Share of the best loss so far by which the next must be below it, or nothing was gained.
GAIN = 1e-3


@dataclass(frozen=True)
class Staged:
    """A batch and the stage, counted from 0, that it belongs to."""

    batch: Any
    stage: int

    def to(self, device: torch.device | str) -> "Staged":
        return Staged(self.batch.to(device), self.stage)


class Curriculum:
    """Batches of one stage after another. `makers` give the batches of each stage when it begins.

    An update takes `accumulate` batches. A stage ends after its number of updates, at the next batch, or when
    `observe` has seen no gain for as long as its patience, whichever comes first.
    """

    def __init__(self, stages: Sequence[StageConfig], makers: Sequence[Callable[[], ResumableIterable]], accumulate: int):
        self._stages, self._makers, self._accumulate = stages, makers, accumulate
        self._best: float | None = None
        self._begin(0)

    def __iter__(self) -> Iterator[Staged]:
        while True:
            stage, stream = self._stage, iter(self._batches)
            while stage == self._stage and not self._exhausted():
                batch = next(stream)
                self._taken += 1
                yield Staged(batch, stage)
            if stage == self._stage:
                self._move_on(f"after {self._stages[stage].steps} updates")

    def observe(self, step: int, means: Mapping[str, float]) -> None:
        """Take note of the mean losses that were logged at an update; the loop calls this.

        The first means of a stage may hold updates of the stage before, and do not count.
        """
        patience, loss = self._stages[self._stage].patience, means["loss"]
        self._observed += 1
        if patience is None or self._is_last() or self._observed == 1:
            return
        if self._best is None or loss < self._best - GAIN * abs(self._best):
            self._best, self._stale = loss, 0
        else:
            self._stale += 1
        if self._stale >= patience:
            self._move_on(f"at step {step}, its loss no lower for {patience} observations")

    def state_dict(self) -> dict[str, Any]:
        """The stage, how far it has come, and the cursor of its batches."""
        return {
            "stage": self._stage,
            "updates": self._taken // self._accumulate,
            "observed": self._observed,
            "best": self._best,
            "stale": self._stale,
            "stages": self._fingerprint(),
            "batches": self._batches.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["stages"] != self._fingerprint():
            raise ValueError("the cursor belongs to another curriculum; resume with the same stages, or start without the cursor.")
        self._begin(state["stage"])
        self._taken = state["updates"] * self._accumulate
        self._observed, self._best, self._stale = state["observed"], state["best"], state["stale"]
        self._batches.load_state_dict(state["batches"])

    def _begin(self, stage: int) -> None:
        self._stage, self._batches = stage, self._makers[stage]()
        self._taken = self._observed = self._stale = 0
        self._best = None

    def _is_last(self) -> bool:
        return self._stage == len(self._stages) - 1

    def _exhausted(self) -> bool:
        steps = self._stages[self._stage].steps
        return steps is not None and not self._is_last() and self._taken >= steps * self._accumulate

    def _move_on(self, why: str) -> None:
        former = self._stage
        self._begin(former + 1)
        kinds = [self._stages[k].kind for k in (former, former + 1)]
        log.info(
            "Curriculum: stage %d (%s) ends %s; stage %d of %d (%s).", former + 1, kinds[0], why, former + 2, len(self._stages), kinds[1]
        )

    def _fingerprint(self) -> str:
        return hashlib.sha256(json.dumps([to_dict(stage) for stage in self._stages]).encode()).hexdigest()[:16]


def staged(losses: Sequence[Loss]) -> Loss:
    """The loss of each stage for its own batches; the part "stage" says which it was."""

    def loss(model: Any, batch: Staged, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, Tensor]]:
        total, parts = losses[batch.stage](model, batch.batch, generator, progress)
        return total, {**parts, "stage": torch.tensor(float(batch.stage + 1))}

    return loss
