"""Decoding in closed loop: a causal model fed chunk by chunk, with carried state instead of a window.

What is carried is what the full forward could still read of the past: of each signal the samples that do not fill a
patch yet and the last tokens that a latent may attend to, of each layer the inputs of its convolution and the state of
its scan. The cost of a chunk does not grow with the session, and what is decoded equals the full forward.

Shapes: B batch, T samples or tokens, n bins, C channels, K target columns, D width.
"""

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

import torch
from torch import Tensor, nn

from neurofm_ml.models.neurofmx.heads import Prediction
from neurofm_ml.nn.ssm import FEW, SSMBlock
from neurofm_ml.types import Latents, StreamBatch, TokenizedSequence

if TYPE_CHECKING:
    from neurofm_ml.models.neurofmx.model import NeuroFMx

M = TypeVar("M", bound=nn.Module)
Precision = Literal["float32", "bfloat16"]

#: Share of a bin by which its end may lie past the clock: rounding, not time.
ROUNDING = 1e-6


class Stream:
    """Decodes `tasks` of B sessions (rows of the vocabulary) on a grid of bins of `dt` seconds, the first at `t0`.

    All B share one clock, which starts at 0 with the first chunk. Fusion and layers are copies: a model that is trained
    further needs a new stream. With `precision` "bfloat16" these read half as many bytes of weights, which is most of what a
    chunk costs on a CPU, and differ from the full forward by some thousandths instead of its rounding.
    """

    def __init__(
        self, model: "NeuroFMx", tasks: Sequence[str], session: Tensor, dt: float, t0: float = 0.0, precision: Precision = "float32"
    ) -> None:
        _check_streamable(model)
        self.model, self.dt, self.t0 = model, dt, t0
        self.session = model.session(session).detach()[:, None]
        self.fusion, self.norm = for_few_rows(model.fusion, precision), model.norm
        self.blocks = [for_few_rows(cast(SSMBlock, block), precision) for block in model.backbone]
        self.behaviour = {task: model.behaviour[task] for task in tasks}
        self.states = [block.init_state(len(session)) for block in self.blocks]
        self.signals: dict[str, Signal] = {}
        self.now, self.n_bins = 0.0, 0

    @torch.inference_mode()
    def push(self, streams: Mapping[str, StreamBatch], seconds: float) -> Prediction:
        """Take in what was measured in the next `seconds`, and decode the bins that are finished then, none or many.

        The times of `streams` (`t0`, `times`) count from the start of the chunk; a sample is pushed with the chunk in
        which it begins, or at the latest with that in which it ends. A signal may be absent, and come back: what it
        misses is not valid, as in a full window. The latents' times (B, n), float64, are those of the stream's clock.
        """
        started, self.now = self.now, self.now + seconds
        for name, chunk in streams.items():
            self.signals.setdefault(name, Signal()).take(chunk, started, self.model)
        first, self.n_bins = self.n_bins, max(self.n_bins, math.floor((self.now - self.t0) / self.dt + ROUNDING))
        values, mask = self._latents(first, self.n_bins - first)
        for signal in self.signals.values():
            signal.forget(self.model.cfg.context)
        times = self.t0 + self.dt * (torch.arange(first, self.n_bins, dtype=torch.float64, device=values.device) + 0.5)
        latents = Latents(values, times.expand(len(values), -1), mask)
        return Prediction(latents, {task: head(values) for task, head in self.behaviour.items()})

    def _latents(self, first: int, n: int) -> tuple[Tensor, Tensor]:
        """Latents (B, n, D) of `n` bins from bin `first` on, and where they saw anything (B, n)."""
        start = self.t0 + first * self.dt
        sequences = [tokens for signal in self.signals.values() if (tokens := signal.read(start)) is not None]
        b, device = len(self.session), self.session.device
        if n and sequences:
            times = self.dt * (torch.arange(n, device=device) + 0.5).expand(b, -1)
            values, mask = self.fusion(sequences, times, torch.full((b,), self.dt, device=device))
        else:
            values = self.session.new_zeros(b, n, self.session.shape[2])
            mask = torch.zeros(b, n, dtype=torch.bool, device=device)
        values = values + self.session
        gaps = None if bool(mask.all()) else mask
        for i, block in enumerate(self.blocks if n else ()):
            values, self.states[i] = block.advance(values, self.states[i], gaps)
        return self.norm(values), mask


class FewRows(nn.Module):
    """A linear layer for a few rows: weight times rows, which reads the weight once, in the order it lies in memory."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, T, F)."""
        y = (self.weight @ x.flatten(0, 1).T).T.unflatten(0, x.shape[:2])
        return y if self.bias is None else y + self.bias


class HalfBytes(nn.Module):
    """The same in bfloat16, the weight laid out for oneDNN once (the operators that torch.compile packs CPU weights with)."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        self.weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach().bfloat16(), FEW)
        self.bias = None if layer.bias is None else layer.bias.detach().bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, D) to (B, T, F)."""
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x.bfloat16(), self.weight, self.bias, "none", [], "")
        return y.to(x.dtype)


LAYERS: Mapping[Precision, type[nn.Module]] = {"float32": FewRows, "bfloat16": HalfBytes}


def for_few_rows(module: M, precision: Precision) -> M:
    """A copy whose linear layers are made for few rows."""
    copied = copy.deepcopy(module).eval().requires_grad_(False)
    for parent in list(copied.modules()):
        for name, layer in parent.named_children():
            if isinstance(layer, nn.Linear):
                setattr(parent, name, LAYERS[precision](layer))
    return copied


class Signal:
    """What is remembered of one signal: samples without a whole patch, and the last tokens."""

    def __init__(self) -> None:
        self.due: float | None = None  # when its next sample is, seconds of the stream's clock
        self.rest: StreamBatch | None = None
        self.tokens: TokenizedSequence | None = None
        self.begin = 0.0  # when the first of the tokens is

    def take(self, chunk: StreamBatch, started: float, model: "NeuroFMx") -> None:
        """Make tokens of every patch that a chunk completes; it started at `started` of the stream's clock."""
        dt, size = _step(chunk), model.tokenizer(chunk.modality).size(chunk)
        begin, n = started + float(chunk.t0[0]), chunk.values.shape[1]
        missed = 0 if self.due is None else _missed(self.due, begin, dt, chunk)
        # Of a long gap, as many patches as a latent may read are enough to know that nothing is there.
        missed -= max(0, missed // size - model.cfg.context - 1) * size
        self.due = begin + n * dt
        samples = _joined(self.rest, missed, chunk)
        whole = samples.values.shape[1] // size * size
        self.rest = _cut(samples, slice(whole, None)) if whole < samples.values.shape[1] else None
        if whole:
            self._append(model.tokens(_cut(samples, slice(whole))), self.due - samples.values.shape[1] * dt)

    def _append(self, new: TokenizedSequence, begin: float) -> None:
        """Put tokens, the first of which is at `begin`, after those at hand. The clock is theirs: rounding does not add up."""
        old, self.tokens, self.begin = self.tokens, new, begin
        if old is not None:
            tokens, mask, times = (torch.cat([getattr(old, name), getattr(new, name)], 1) for name in ("tokens", "mask", "times"))
            self.tokens = dataclasses.replace(new, tokens=tokens, mask=mask, times=times)
            self.begin -= old.tokens.shape[1] * float(new.dt[0])

    def read(self, origin: float) -> TokenizedSequence | None:
        """The tokens at hand, their clock counted from `origin`."""
        if self.tokens is None:
            return None
        return dataclasses.replace(self.tokens, t0=torch.full_like(self.tokens.dt, self.begin - origin))

    def forget(self, context: int) -> None:
        """Keep the last `context` tokens that have ended, and one that may not have: bins to come read no other."""
        if self.tokens is not None and (dropped := self.tokens.tokens.shape[1] - context - 1) > 0:
            t = self.tokens
            self.tokens = dataclasses.replace(t, tokens=t.tokens[:, dropped:], mask=t.mask[:, dropped:], times=t.times[:, dropped:])
            self.begin += dropped * float(t.dt[0])


def _check_streamable(model: "NeuroFMx") -> None:
    if model.cfg.bidirectional:
        raise ValueError("a bidirectional model sees the future and cannot stream; train one with NeuroFMxConfig.bidirectional = False.")
    if model.cfg.backbone != "ssm":
        raise ValueError(f'NeuroFMxConfig.backbone is {model.cfg.backbone!r}; only "ssm" carries a state and can stream.')


def _step(chunk: StreamBatch) -> float:
    """Sampling step of a chunk, seconds. Raises where there is none, or the windows differ in their clocks."""
    if not bool(((chunk.dt == chunk.dt[0]) & (chunk.t0 == chunk.t0[0])).all()):
        raise ValueError(
            f"the {chunk.modality} of a stream needs one regular clock for all sessions; stream sessions that differ by themselves."
        )
    return float(chunk.dt[0])


def _missed(due: float, begin: float, dt: float, chunk: StreamBatch) -> int:
    """Samples between the one that was due and the one that came."""
    missed = round((begin - due) / dt)
    if missed < 0:
        raise ValueError(
            f"{chunk.modality} begins at {begin:g} s of the stream, {-missed} samples before the next one is due at {due:g} s; "
            "push each sample once, with t0 counted from the start of its chunk."
        )
    return missed


def _joined(rest: StreamBatch | None, missed: int, chunk: StreamBatch) -> StreamBatch:
    """The samples that wait, `missed` samples without a value, and those of the chunk."""
    if rest is None and not missed:
        return chunk
    parts: dict[str, Any] = {}
    for name, value in _timed(chunk).items():
        gap = value.new_zeros(value.shape[0], missed, *value.shape[2:])
        parts[name] = torch.cat([gap, value] if rest is None else [getattr(rest, name), gap, value], dim=1)
    return dataclasses.replace(chunk, **parts)


def _cut(stream: StreamBatch, part: slice) -> StreamBatch:
    parts: dict[str, Any] = {name: value[:, part] for name, value in _timed(stream).items()}
    return dataclasses.replace(stream, **parts)


def _timed(stream: StreamBatch) -> dict[str, Tensor]:
    """The fields that have a sample axis, (B, T, ...)."""
    fields = {name: getattr(stream, name) for name in ("values", "mask", "times", "counts", "seen")}
    return {name: value for name, value in fields.items() if value is not None}
