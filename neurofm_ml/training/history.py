"""What a run of the training loop gives back, and what it claims of itself."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from neurofm_ml.training.curves import Curves
from neurofm_ml.types import Array, Check


@dataclass(frozen=True)
class History:
    """What `fit` did, every attempt counted. `curves` maps "loss", "grad_norm", "lr", the parts of the loss and
    "validation/<name>" to (updates, values); rates are those of all processes together. `gpu` holds what a GPU did and
    cost, where there was one."""

    steps: int
    resumed_from: int
    seconds: float
    steps_per_second: float
    samples_per_second: float
    device: str
    curves: Curves
    checks: tuple[Check, ...]
    gpu: Mapping[str, float]

    def last(self, name: str) -> float:
        """The last logged value, as in ``history.last("loss")``."""
        return float(self.curves[name][1][-1])

    @property
    def metrics(self) -> dict[str, float | int | str]:
        """Numbers for a job's report: the last value of every curve, and what it took."""
        took = {
            name: getattr(self, name) for name in ("steps", "resumed_from", "seconds", "steps_per_second", "samples_per_second", "device")
        }
        return {**{name: self.last(name) for name in self.curves}, **took, **self.gpu}

    @property
    def shown(self) -> dict[str, str]:
        """Files for a job's report, relative to `out`."""
        return {"loss curve": "loss.png", "metrics": "metrics.csv"}


def loss_checks(losses: Array) -> tuple[Check, ...]:
    """Claims about the logged training losses (n,)."""
    tenth = max(1, len(losses) // 10)
    first, last = float(losses[:tenth].mean()), float(losses[-tenth:].mean())
    return (
        Check("loss_is_finite", bool(np.isfinite(losses).all()), numbers={"last": float(losses[-1])}, threshold="every logged loss finite"),
        Check("loss_fell", last < first, "warn", {"first": first, "last": last}, "mean of the last tenth below that of the first"),
    )
