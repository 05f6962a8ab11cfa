"""Watching a run while it trains: Weights & Biases, and what the GPU does and costs.

Tracking is on where NEUROFM_WANDB_PROJECT names a project. It stays on this machine, in WANDB_DIR (else under
NEUROFM_HOME), unless WANDB_MODE says "online"; ``wandb sync`` carries it to a server later. Training never depends
on it: a tracker that fails says so once and is left.
"""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from neurofm_ml.files import home

log = logging.getLogger(__name__)
T = TypeVar("T")

PRICE = "NEUROFM_GPU_PRICE_PER_HOUR"
#: Seconds that an upload may take after the last step; what is left then is sent by ``wandb sync``.
UPLOAD_S = 60.0


class Tracker:
    """One run at W&B, or none. A resumed run goes on under its former `run_id`, which its checkpoints keep."""

    def __init__(self, out: Path, config: Mapping[str, Any], run_id: str | None, watching: bool) -> None:
        self.run_id, self._out = run_id, out
        self._run: Any = None
        if (project := os.environ.get("NEUROFM_WANDB_PROJECT")) and watching:
            self._run = self._safely(lambda: _start(project, out, config, run_id))
            self.run_id = self._run.id if self._run else run_id

    def __enter__(self) -> "Tracker":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if run := self._run:
            self._safely(lambda: run.finish(exit_code=int(kind is not None)))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Add values to those of `step`."""
        if run := self._run:
            self._safely(lambda: run.log(dict(values), step=step))

    def _safely(self, call: Callable[[], T]) -> T | None:
        """What `call` gives; where it fails, nothing is tracked from here on."""
        try:
            return call()
        except Exception as error:  # a service beside the training, and whatever it raises
            log.warning("W&B no longer tracks %s, training goes on: %s: %s", self._out, type(error).__name__, error)
            self._run = None
            return None


def _start(project: str, out: Path, config: Mapping[str, Any], run_id: str | None) -> Any:
    """A W&B run called after the place of its artifact: asset, partition, fingerprint."""
    import wandb

    folder = Path(os.environ.get("WANDB_DIR") or home())
    folder.mkdir(parents=True, exist_ok=True)
    artifacts = home() / "artifacts"
    return wandb.init(
        project=project,
        id=run_id,
        resume="allow",
        name=str(out.relative_to(artifacts) if out.is_relative_to(artifacts) else out.name),
        config={**config, "folder": str(out)},
        mode=os.environ.get("WANDB_MODE") or "offline",  # type: ignore[arg-type]  # wandb refuses other words itself
        dir=folder,
        reinit="create_new",
        settings=wandb.Settings(console="off", silent=True, disable_git=True, disable_code=True, finish_timeout=UPLOAD_S),
    )


class GpuMeter:
    """How busy a GPU was at the moments it was looked at, and what the run has cost so far; nothing on a CPU.

    `world` is the number of GPUs. Raises ValueError where the price in the environment is no number.
    """

    def __init__(self, device: torch.device, world: int) -> None:
        self._device, self._world = device, world
        self._on, self._busy = device.type == "cuda", list[float]()
        self._price = price_per_hour() if self._on else None

    def look(self) -> None:
        """Ask the GPU now how busy it is."""
        if self._on and (busy := _utilization(self._device)) is not None:
            self._busy.append(busy)

    def numbers(self, seconds: float) -> dict[str, float]:
        """After `seconds` of training: percent busy (mean over the looks), peak memory, hours and cost of all GPUs."""
        if not self._on:
            return {}
        hours = seconds * self._world / 3600
        found = {"gpu_peak_memory_gb": torch.cuda.max_memory_allocated(self._device) / 1e9, "gpu_hours": hours}
        if self._busy:
            found["gpu_busy_percent"] = sum(self._busy) / len(self._busy)
        if self._price is not None:
            found["gpu_cost"] = hours * self._price
        return found


def price_per_hour() -> float | None:
    """What one GPU costs in an hour, in whatever currency the environment has it; None where it is not said."""
    given = os.environ.get(PRICE)
    try:
        return float(given) if given else None
    except ValueError:
        raise ValueError(f"{PRICE} is {given!r}; it needs a number such as 2.49, or be unset.") from None


def _utilization(device: torch.device) -> float | None:
    """Percent; None without nvidia-ml-py, or where the driver does not tell (a slice of a GPU)."""
    try:
        return float(torch.cuda.utilization(device))
    except Exception:  # NVML's errors are a package of their own, which may be missing
        return None
