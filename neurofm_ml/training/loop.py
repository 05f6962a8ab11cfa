"""The only training loop: any model, any loss, one optimiser, resumable at every update.

Lightning Fabric brings devices, precision and strategy (``strategies``); this file decides what one update is, what
is logged, and when a checkpoint is written. Everything random in micro-batch m of update k, counted over all processes,
is a pure function of (seed, k, m): the global torch generator (dropout) and the generator handed to the loss
(augmentation) are seeded anew each time. So a resumed run needs no saved random state and, on a CPU, ends in the same
bits as one that was never interrupted; and two processes do what one does with twice the micro-batches.
"""

import logging
import math
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from neurofm_ml.artifacts import save_work
from neurofm_ml.presets import TrainConfig
from neurofm_ml.training.checkpoints import Checkpoint, identity, latest_checkpoint, refuse_other_run, save_checkpoint
from neurofm_ml.training.curves import MetricsLog, plot_curves, read_curves
from neurofm_ml.training.ema import Ema
from neurofm_ml.training.history import History, loss_checks
from neurofm_ml.training.optimizer import pack_state, unpack_state
from neurofm_ml.training.preemption import stop_requests
from neurofm_ml.training.schedule import warmup_cosine
from neurofm_ml.training.sharding import load_whole, weights_of, whole
from neurofm_ml.training.strategies import Engine, gathered, launched, prepared
from neurofm_ml.training.tracking import GpuMeter, Tracker
from neurofm_ml.training.zero import ZeroEngine
from neurofm_ml.types import Preempted

log = logging.getLogger(__name__)

#: ``loss(model, batch, generator, progress) -> (scalar, parts)``: progress runs from 0 to 1, `generator` lives on
#: the model's device, parts are numbers to log (0-d tensors spare the device a wait).
Parts = Mapping[str, float | Tensor]
LossFunction = Callable[[Any, Any, torch.Generator, float], tuple[Tensor, Parts]]
Validation = Callable[[Any], Mapping[str, float]]
Observer = Callable[[int, Mapping[str, float]], None]


class ResumableIterable(Protocol):
    """Endless batches (anything with ``.to(device)``) with a cursor.

    `state_dict` is plain JSON and speaks of the batches handed out, not of those prefetched; it is the
    same on every rank.
    """

    def __iter__(self) -> Iterator[Any]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Diverged(ValueError):  # noqa: N818 (says what happened, as Preempted does)
    """The loss of a run, or its gradient, stopped being finite."""


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
    observe: Observer | None = None,
    checkpoint_at: Collection[int] = (),
    quiet: bool = False,
) -> History:
    """Train `model` in place for ``cfg.steps`` updates; on return it carries the averaged weights, on the CPU, in eval mode.

    Writes ``checkpoints/``, ``metrics.csv`` and ``loss.png`` under `out`, and takes up there what an
    earlier call left; W&B follows where the environment asks for it (``tracking``). `validate` sees the averaged model
    at every checkpoint, `observe` is told the step and the means at every logged one, both on all processes alike.
    `provenance` (data versions, code version, git revision) is kept in the checkpoints, of which there is one after the
    updates `checkpoint_at` too. `quiet` shows no bar and is not followed by W&B. After SIGTERM the next logged
    step ends in a checkpoint and `Preempted`. Raises Diverged when the loss stops being finite, and ValueError when `out`
    holds the checkpoint of another run.
    """
    fabric = launched(cfg)
    devices = [fabric.device] if fabric.device.type == "cuda" else []
    with torch.random.fork_rng(devices), stop_requests() as stop:
        engine = (ZeroEngine if cfg.strategy == "deepspeed" else Engine)(fabric, model, cfg)
        run = _Run(engine, batches, loss, cfg, out, seed, dict(provenance or {}), {*checkpoint_at, cfg.steps}, quiet)
        with prepared(engine.model, cfg):
            start = run.resume()
            run.train(start, validate or (lambda _: {}), observe or (lambda *_: None), stop, description)
    with run.ema.swapped():
        averaged = whole(weights_of(engine.model))
    model.cpu().eval().load_state_dict(averaged)
    curves = read_curves(out / "metrics.csv")
    if fabric.is_global_zero:
        plot_curves(curves, out / "loss.png", description)
    rate = cfg.steps / run.seconds
    samples = cfg.batch_size * cfg.accumulate * fabric.world_size
    gpu = run.meter.numbers(run.seconds)
    return History(cfg.steps, start, run.seconds, rate, rate * samples, str(fabric.device), curves, loss_checks(curves["loss"][1]), gpu)


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
        engine: Engine,
        batches: ResumableIterable,
        loss: LossFunction,
        cfg: TrainConfig,
        out: Path,
        seed: int,
        provenance: dict[str, str],
        checkpoint_at: Collection[int],
        quiet: bool,
    ) -> None:
        self.engine, self.fabric, self.batches, self.loss, self.cfg, self.out = engine, engine.fabric, batches, loss, cfg, out
        self.ema = Ema(engine.model, cfg.ema)
        self.seed, self.checkpoint_at, self.quiet = seed, checkpoint_at, quiet
        self.identity, self.provenance = identity(cfg, seed, self.fabric.world_size), provenance
        self.seconds = 0.0
        self.meter = GpuMeter(self.fabric.device, self.fabric.world_size)
        self.wandb_id: str | None = None
        self.pending: list[_Update] = []

    def resume(self) -> int:
        """Take up the newest sound checkpoint; gives the number of updates done, 0 where there is none."""
        found = latest_checkpoint(self.out / "checkpoints")
        if found is None:
            return 0
        refuse_other_run(found, self.identity, self.out)
        model = self.engine.model
        load_whole(model, found.ema)
        self.ema.restart()
        load_whole(model, found.weights)
        unpack_state(self.engine.optimizer, model, found.optimizer)
        self.batches.load_state_dict(found.state["cursor"])
        self.seconds = found.state["seconds"]
        self.wandb_id = found.state.get("wandb_id")
        log.info("Resuming %s from step %d.", self.out, found.step)
        return found.step

    def train(self, start: int, validate: Validation, observe: Observer, stop: Callable[[], bool], description: str) -> None:
        """All updates after `start`, with logging, validation and checkpoints between them."""
        cfg, chief = self.cfg, self.fabric.is_global_zero
        stream = iter(self.batches)
        self.engine.model.train()
        with (
            MetricsLog(self.out / "metrics.csv", start, writing=chief) as metrics,
            self._tracker(chief and start < cfg.steps and not self.quiet) as tracker,
            tqdm(total=cfg.steps, initial=start, desc=description, unit="step", disable=None if chief and not self.quiet else True) as bar,
        ):
            began = time.perf_counter() - self.seconds
            for step in range(start + 1, cfg.steps + 1):
                self.pending.append(self._update(step, stream))
                bar.update()
                due = step % cfg.checkpoint_every == 0 or step in self.checkpoint_at
                if not (due or step % cfg.log_every == 0):
                    continue
                means = self._means()
                metrics.write(step, means)
                observe(step, means)
                self.meter.look()
                tracker.write(step, {**means, **self.meter.numbers(time.perf_counter() - began)})
                bar.set_postfix(loss=f"{means['loss']:.4g}")
                if due:
                    found = self._validated(validate)
                    metrics.write(step, found)
                    tracker.write(step, found)
                stopping = step < cfg.steps and any(gathered(self.fabric, stop()))
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
        results = [self._backward(step, micro, next(stream)) for micro in range(self.cfg.accumulate)]
        norm = self.engine.step(rate, self.cfg.clip_norm)
        self.ema.update()
        return _Update(step, torch.stack([loss for loss, _ in results]).mean(), norm, [{**parts, "lr": rate} for _, parts in results])

    def _backward(self, step: int, micro: int, batch: Any) -> tuple[Tensor, Parts]:
        """Add the gradient of one micro-batch. Its randomness follows its place in the update, whichever process has it."""
        cfg, fabric = self.cfg, self.fabric
        place = micro * fabric.world_size + fabric.global_rank
        for_model, for_loss = np.random.SeedSequence((self.seed, step, place)).generate_state(2, np.uint64)
        # torch.manual_seed formats a stack trace for each kind of device, used or not: a third of a millisecond.
        (torch.default_generator.manual_seed if fabric.device.type == "cpu" else torch.manual_seed)(int(for_model))
        generator = torch.Generator(fabric.device).manual_seed(int(for_loss))
        moved, progress = batch.to(fabric.device), (step - 1) / cfg.steps
        loss, parts = self.engine.backward(lambda model: self.loss(model, moved, generator, progress), micro, cfg.accumulate)
        return loss, {name: value.detach() if isinstance(value, Tensor) else value for name, value in parts.items()}

    def _means(self) -> dict[str, float]:
        """Means over the updates since the last call and all processes. Raises Diverged naming the first that was not finite."""
        updates, self.pending = self.pending, []
        values: dict[str, list[float]] = {}
        for update in updates:
            for name, value in (item for parts in update.parts for item in parts.items()):
                values.setdefault(name, []).append(float(value))
        rows = torch.stack([torch.stack([u.loss, u.grad_norm]).float() for u in updates]).tolist()
        everywhere = gathered(self.fabric, (rows, values))
        means = np.mean([rows for rows, _ in everywhere], 0)
        for update, (loss, norm) in zip(updates, means, strict=True):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise Diverged(
                    f"Training diverged at step {update.step} of {self.cfg.steps}: loss {loss}, gradient norm {norm}. "
                    f"The last good checkpoint is kept in {self.out / 'checkpoints'}; lower TrainConfig.lr "
                    f"(now {self.cfg.lr}) or look for values in the batches that are not finite."
                )
        names = dict.fromkeys(name for _, values in everywhere for name in values)
        found = {name: [v for _, values in everywhere for v in values.get(name, ())] for name in names}
        found |= {"loss": [loss for loss, _ in means], "grad_norm": [norm for _, norm in means]}
        return {name: float(np.mean(values)) for name, values in found.items()}

    def _validated(self, validate: Validation) -> dict[str, float]:
        with torch.no_grad(), self.ema.swapped(), self.engine.usable() as model:
            return {f"validation/{name}": value for name, value in validate(model).items()}

    def _save(self, step: int) -> None:
        chief, model = self.fabric.is_global_zero, self.engine.model
        weights, optimizer = whole(weights_of(model), chief), whole(pack_state(self.engine.optimizer, model), chief)
        with self.ema.swapped():
            ema = whole(weights_of(model), chief)
        if chief:
            state = {
                "config": self.identity,
                "provenance": self.provenance,
                "cursor": self.batches.state_dict(),
                "seconds": self.seconds,
                "wandb_id": self.wandb_id,
            }
            save_checkpoint(self.out / "checkpoints", Checkpoint(step, weights, ema, optimizer, state), self.cfg.keep)
            save_work(self.out)
