"""The only training loop: any model, any loss, one optimiser, resumable at every update.

Lightning Fabric brings devices, precision and strategy; this file decides what one update is, what
is logged, and when a checkpoint is written. Everything random in update k of micro-batch m on rank r
is a pure function of (seed, k, m, r): the global torch generator (dropout) and the generator handed
to the loss (augmentation) are seeded anew each time, so a resumed run needs no saved random state
and, on a CPU, ends in the same bits as one that was never interrupted.
"""

import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from neurofm_ml.artifacts import save_work
from neurofm_ml.config import to_dict
from neurofm_ml.presets import TrainConfig
from neurofm_ml.training.checkpoints import Checkpoint, latest_checkpoint, save_checkpoint
from neurofm_ml.training.curves import Curves, MetricsLog, plot_curves, read_curves
from neurofm_ml.training.ema import Ema
from neurofm_ml.training.optimizer import adamw, pack_state, unpack_state
from neurofm_ml.training.preemption import stop_requests
from neurofm_ml.training.schedule import warmup_cosine
from neurofm_ml.training.tracking import GpuMeter, Tracker
from neurofm_ml.types import Array, Check, Preempted

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger(__name__)

#: ``loss(model, batch, generator, progress) -> (scalar, parts)``: progress runs from 0 to 1, `generator` lives on
#: the model's device, parts are numbers to log (0-d tensors spare the device a wait).
Parts = Mapping[str, float | Tensor]
LossFunction = Callable[[Any, Any, torch.Generator, float], tuple[Tensor, Parts]]
Validation = Callable[[Any], Mapping[str, float]]


class ResumableIterable(Protocol):
    """Endless batches (anything with ``.to(device)``) with a cursor.

    `state_dict` is plain JSON and speaks of the batches handed out, not of those prefetched; it is the
    same on every rank.
    """

    def __iter__(self) -> Iterator[Any]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


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


def rank_and_world(cfg: TrainConfig) -> tuple[int, int]:
    """This process and how many there are, as torchrun says; (0, 1) unless the strategy uses several."""
    if cfg.strategy == "single":
        return 0, 1
    return int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))


def fit(
    model: nn.Module,
    batches: ResumableIterable,
    loss: LossFunction,
    cfg: TrainConfig,
    out: Path,
    *,
    seed: int,
    validate: Validation | None = None,
    provenance: Mapping[str, str] | None = None,
    description: str = "training",
) -> History:
    """Train `model` in place for ``cfg.steps`` updates; on return it carries the averaged weights, on the CPU, in eval mode.

    Writes ``checkpoints/``, ``metrics.csv`` and ``loss.png`` under `out`, and takes up there what an
    earlier call left; W&B follows where the environment asks for it (``tracking``). `validate` sees the averaged model
    at every checkpoint. `provenance` (data versions, code version, git revision) is kept in the checkpoints. On SIGTERM
    a checkpoint is written and `Preempted` raised. Raises ValueError when the loss stops being finite, or when `out`
    holds the checkpoint of another run.
    """
    fabric = _fabric(cfg)
    devices = [fabric.device] if fabric.device.type == "cuda" else []
    with torch.random.fork_rng(devices), stop_requests() as stop:
        run = _Run(fabric, model, batches, loss, cfg, out, seed, dict(provenance or {}))
        start = run.resume()
        run.train(start, validate or (lambda _: {}), stop, description)
    model.load_state_dict(run.ema.model.state_dict())
    model.cpu().eval()
    curves = read_curves(out / "metrics.csv")
    if fabric.is_global_zero:
        plot_curves(curves, out / "loss.png", description)
    rate = cfg.steps / run.seconds
    samples = cfg.batch_size * cfg.accumulate * fabric.world_size
    gpu = run.meter.numbers(run.seconds)
    return History(cfg.steps, start, run.seconds, rate, rate * samples, str(fabric.device), curves, _checks(curves["loss"][1]), gpu)


def _fabric(cfg: TrainConfig) -> "Fabric":
    """Devices, precision and strategy. Several processes are started by torchrun, never from here."""
    from lightning_fabric import Fabric
    from lightning_fabric.strategies import DDPStrategy

    if cfg.strategy == "single":
        own = [int(os.environ.get("LOCAL_RANK", "0"))] if torch.cuda.is_available() else 1
        return Fabric(devices=own, precision=cfg.precision)
    local = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    nodes = rank_and_world(cfg)[1] // local
    # A batch may lack a modality, and with it the parameters of that modality's tokenizer.
    fabric = Fabric(strategy=DDPStrategy(find_unused_parameters=True), devices=local, num_nodes=nodes, precision=cfg.precision)
    fabric.launch()
    return fabric


def _checks(losses: Array) -> tuple[Check, ...]:
    """Claims about the logged training losses (n,)."""
    tenth = max(1, len(losses) // 10)
    first, last = float(losses[:tenth].mean()), float(losses[-tenth:].mean())
    return (
        Check("loss_is_finite", bool(np.isfinite(losses).all()), numbers={"last": float(losses[-1])}, threshold="every logged loss finite"),
        Check("loss_fell", last < first, "warn", {"first": first, "last": last}, "mean of the last tenth below that of the first"),
    )


class _Objective(nn.Module):
    """The model behind one forward call, so that strategy and autocast see whatever the loss does with it."""

    def __init__(self, model: nn.Module, compiled: bool) -> None:
        super().__init__()
        self.model = torch.compile(model) if compiled else model

    def forward(self, compute: Callable[[Any], tuple[Tensor, Parts]]) -> tuple[Tensor, Parts]:
        return compute(self.model)


@dataclass(frozen=True)
class _Update:
    """What one update gave, still on the device: loss and gradient norm (0-d), parts of each micro-batch."""

    step: int
    loss: Tensor
    grad_norm: Tensor
    parts: Sequence[Parts]


class _Run:
    """One call of `fit`: everything an update changes, and how it is logged and saved."""

    def __init__(
        self,
        fabric: "Fabric",
        model: nn.Module,
        batches: ResumableIterable,
        loss: LossFunction,
        cfg: TrainConfig,
        out: Path,
        seed: int,
        provenance: dict[str, str],
    ) -> None:
        self.fabric, self.model, self.batches, self.loss, self.cfg, self.out = fabric, model, batches, loss, cfg, out
        self.optimizer = adamw(model, cfg)
        self.objective, self.stepper = fabric.setup(_Objective(model, cfg.compile), self.optimizer)
        self.ema = Ema(model, cfg.ema)
        self.seed = seed
        self.identity, self.provenance = {"seed": seed, **to_dict(cfg)}, provenance
        self.seconds = 0.0
        self.meter = GpuMeter(fabric.device, fabric.world_size)
        self.wandb_id: str | None = None
        self.pending: list[_Update] = []

    def resume(self) -> int:
        """Take up the newest sound checkpoint; gives the number of updates done, 0 where there is none."""
        found = latest_checkpoint(self.out / "checkpoints")
        if found is None:
            return 0
        _refuse_other_run(found, self.identity, self.out)
        self.model.load_state_dict(found.weights)
        self.ema.model.load_state_dict(found.ema)
        unpack_state(self.optimizer, self.model, found.optimizer)
        self.batches.load_state_dict(found.state["cursor"])
        self.seconds = found.state["seconds"]
        self.wandb_id = found.state.get("wandb_id")
        log.info("Resuming %s from step %d.", self.out, found.step)
        return found.step

    def train(self, start: int, validate: Validation, stop: Callable[[], bool], description: str) -> None:
        """All updates after `start`, with logging, validation and checkpoints between them."""
        cfg, chief = self.cfg, self.fabric.is_global_zero
        stream = iter(self.batches)
        self.model.train()
        with (
            MetricsLog(self.out / "metrics.csv", start, writing=chief) as metrics,
            self._tracker(chief and start < cfg.steps) as tracker,
            tqdm(total=cfg.steps, initial=start, desc=description, unit="step", disable=None if chief else True) as bar,
        ):
            began = time.perf_counter() - self.seconds
            for step in range(start + 1, cfg.steps + 1):
                self.pending.append(self._update(step, stream))
                bar.update()
                due = step % cfg.checkpoint_every == 0 or step == cfg.steps
                stopping = not due and self._agree(stop, step)
                if due or stopping or step % cfg.log_every == 0:
                    means = self._means()
                    metrics.write(step, means)
                    self.meter.look()
                    tracker.write(step, {**means, **self.meter.numbers(time.perf_counter() - began)})
                    bar.set_postfix(loss=f"{means['loss']:.4g}")
                if due:
                    with torch.no_grad():
                        found = {f"validation/{name}": value for name, value in validate(self.ema.model).items()}
                    metrics.write(step, found)
                    tracker.write(step, found)
                if due or stopping:
                    metrics.sync()
                    self.seconds = time.perf_counter() - began
                    self._save(step)
                if stopping:
                    self.fabric.barrier()  # torchrun stops all processes as soon as one has ended: not before the checkpoint is whole
                    raise Preempted(f"asked to stop at step {step} of {cfg.steps}; run again with {self.out} to go on from there.")
        self.fabric.barrier()

    def _tracker(self, watching: bool) -> Tracker:
        tracker = Tracker(self.out, {**self.identity, "provenance": self.provenance}, self.wandb_id, watching)
        self.wandb_id = tracker.run_id
        return tracker

    def _update(self, step: int, stream: Iterator[Any]) -> _Update:
        """One step of the optimizer over ``cfg.accumulate`` micro-batches."""
        rate = self.cfg.lr * warmup_cosine(step - 1, self.cfg.steps, self.cfg.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        results = [self._backward(step, micro, next(stream)) for micro in range(self.cfg.accumulate)]
        norm = self.fabric.clip_gradients(self.objective, self.stepper, max_norm=self.cfg.clip_norm, error_if_nonfinite=False)
        self.stepper.step()
        self.optimizer.zero_grad()
        self.ema.update(self.model)
        assert norm is not None
        return _Update(step, torch.stack([loss for loss, _ in results]).mean(), norm, [{**parts, "lr": rate} for _, parts in results])

    def _backward(self, step: int, micro: int, batch: Any) -> tuple[Tensor, Parts]:
        """Add the gradient of one micro-batch; processes exchange gradients on the last one only."""
        cfg, device = self.cfg, self.fabric.device
        for_model, for_loss = np.random.SeedSequence((self.seed, step, micro, self.fabric.global_rank)).generate_state(2, np.uint64)
        # torch.manual_seed formats a stack trace for each kind of device, used or not: a third of a millisecond.
        (torch.default_generator.manual_seed if device.type == "cpu" else torch.manual_seed)(int(for_model))
        generator = torch.Generator(device).manual_seed(int(for_loss))
        moved, progress = batch.to(device), (step - 1) / cfg.steps
        with self.fabric.no_backward_sync(self.objective, enabled=micro + 1 < cfg.accumulate):
            loss, parts = self.objective(lambda model: self.loss(model, moved, generator, progress))
            self.fabric.backward(loss / cfg.accumulate)
        return loss.detach(), {name: value.detach() if isinstance(value, Tensor) else value for name, value in parts.items()}

    def _means(self) -> dict[str, float]:
        """Means over the updates since the last call. Raises ValueError naming the first that was not finite.

        The loss is that of all processes, the parts are those of this one.
        """
        updates, self.pending = self.pending, []
        table = torch.stack([torch.stack([u.loss, u.grad_norm]).float() for u in updates])
        rows = self._reduced(table, "mean").tolist()
        for update, (loss, norm) in zip(updates, rows, strict=True):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise ValueError(
                    f"Training diverged at step {update.step} of {self.cfg.steps}: loss {loss}, gradient norm {norm}. "
                    f"The last good checkpoint is kept in {self.out / 'checkpoints'}; lower TrainConfig.lr "
                    f"(now {self.cfg.lr}) or look for values in the batches that are not finite."
                )
        found: dict[str, list[float]] = {}
        for parts in (parts for update in updates for parts in update.parts):
            for name, value in parts.items():
                found.setdefault(name, []).append(float(value))
        found |= {"loss": [loss for loss, _ in rows], "grad_norm": [norm for _, norm in rows]}
        return {name: float(np.mean(values)) for name, values in found.items()}

    def _agree(self, stop: Callable[[], bool], step: int) -> bool:
        """Whether to stop here: several processes ask each other, and only at the steps that are logged."""
        if self.fabric.world_size == 1:
            return stop()
        if step % self.cfg.log_every:
            return False
        return bool(self._reduced(torch.tensor(float(stop()), device=self.fabric.device), "sum") > 0)

    def _reduced(self, values: Tensor, how: str) -> Tensor:
        """`values` combined over all processes."""
        return cast(Tensor, self.fabric.all_reduce(values, reduce_op=how))

    def _save(self, step: int) -> None:
        if self.fabric.is_global_zero:
            weights, ema = self.model.state_dict(), self.ema.model.state_dict()
            state = {
                "config": self.identity,
                "provenance": self.provenance,
                "cursor": self.batches.state_dict(),
                "seconds": self.seconds,
                "wandb_id": self.wandb_id,
            }
            checkpoint = Checkpoint(step, weights, ema, pack_state(self.optimizer, self.model), state)
            save_checkpoint(self.out / "checkpoints", checkpoint, self.cfg.keep)
            save_work(self.out)


def _refuse_other_run(checkpoint: Checkpoint, identity: Mapping[str, Any], out: Path) -> None:
    """Raise ValueError listing everything this run has otherwise than the checkpoint it would resume."""
    was = checkpoint.state["config"]
    changed = [f"{name} was {was.get(name)!r}, is {value!r}" for name, value in identity.items() if was.get(name) != value]
    if changed:
        raise ValueError(
            f"{out} holds a checkpoint of another run ({'; '.join(changed)}); choose another folder or delete its checkpoints."
        )
