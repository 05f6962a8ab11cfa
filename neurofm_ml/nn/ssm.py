"""Selective state space (Mamba-2): a linear recurrence over time whose decay and input depend on the token.

    h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t'        y_t = h_t C_t

The scan has three forms with one signature: a loop over time (the reference, exact in float64), a chunked form
made of matrix products alone (Dao and Gu 2024, "Transformers are SSMs", section 6), and the fused kernels of
mamba_ssm. `scan` picks one. `SSMBlock` is the layer around it, for whole sequences and step by step.
A step with dt = 0 neither decays the state nor writes to it; that is how padding is passed over.

Shapes: b batch, T steps, D width of the model, E inner width, H heads, P = E / H width of a head, N width of the
state, G groups of heads that share B and C, n steps of any recurrence, F width of any state.
"""

import functools
import importlib
import importlib.util
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Steps per chunk of the chunked form, and per segment of long sequences.
CHUNK = 32
SEGMENT = 512

#: Steps that are few: they are worth forms of their own.
FEW = 8

Scanned = tuple[Tensor, Tensor]


def scan(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None) -> Scanned:
    """The selective scan by the fastest form at hand; arguments and results as in `scan_sequential`."""
    fused = x.is_cuda and x.dtype != torch.float64 and _fused_kernel() is not None and not torch.compiler.is_exporting()
    return (scan_fused if fused else scan_chunked)(x, dt, A, B, C, state)


def scan_sequential(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None) -> Scanned:
    """The recurrence as written, one step after the other: the reference, and the form for single steps.

    x (b, T, H, P); dt (b, T, H) >= 0; A (H,) < 0; B and C (b, T, G, N), where G divides H; state (b, H, P, N) before
    the first step, None for zeros. Returns y (b, T, H, P) and the state after the last step.
    """
    heads_per_group = x.shape[2] // B.shape[2]
    B, C = (v.repeat_interleave(heads_per_group, dim=2) for v in (B, C))
    h = _initial(x, B) if state is None else state
    over_time = (v.unbind(1) for v in ((dt * A).exp()[..., None, None], (x * dt[..., None])[..., None], B[..., None, :], C[..., None]))
    y = []
    for decay, written, into, out_of in zip(*over_time, strict=True):
        h = decay * h + written * into
        y.append((h @ out_of)[..., 0])
    return torch.stack(y, dim=1), h


def scan_chunked(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None, *, chunk: int = CHUNK) -> Scanned:
    """The scan as matrix products: attention-like inside chunks of `chunk` steps, a small recurrence between them.

    Arguments and results as in `scan_sequential`. Time and memory grow linearly with T; any T is exact, since the
    last chunk is filled up with steps of dt = 0. Long sequences go by segments that hand the state on; what is
    exported has no loop at all, so that `torch.onnx.export` keeps T dynamic: its recurrence over chunks is one matrix
    product, which grows with T^2 beyond T = 10,000.
    """
    if x.shape[1] > SEGMENT and not torch.compiler.is_exporting():
        return _by_segments(x, dt, A, B, C, state, chunk)
    T, N = x.shape[1], B.shape[-1]
    chunk = chunk if torch.compiler.is_exporting() else min(chunk, T)
    h = _initial(x, B) if state is None else state
    log_decay = _floor(_split((dt * A).transpose(1, 2), 2, chunk))  # (b, H, c, L): c chunks of L steps
    written = _split((x * dt[..., None]).transpose(1, 2).contiguous(), 2, chunk)  # (b, H, c, L, P)
    B, C = (_split(v.transpose(1, 2), 2, chunk) for v in (B, C))  # (b, G, c, L, N)
    since_start = log_decay.cumsum(-1)
    to_end = since_start[..., -1:] - since_start

    added = written.mT @ _per_head(to_end.exp()[..., None], B)  # (b, H, c, P, N): by each chunk to the state
    before, after = _recur(since_start[..., -1], added.flatten(-2), h.flatten(-2))
    within = _per_head(_decays(since_start), C @ B.mT) @ written
    carried = _per_head(since_start.exp()[..., None], C) @ before.unflatten(-1, (-1, N)).mT
    return _join(within + carried, T).transpose(1, 2), after.unflatten(-1, (-1, N))


def scan_few(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> Scanned:
    """`scan_chunked` of one short chunk whose heads share B and C (G = 1): no more than a few passes over the state."""
    log_decay = _floor((dt * A).transpose(1, 2))
    since_start = log_decay.cumsum(-1)  # (b, H, T)
    written = x.transpose(1, 2) * dt.transpose(1, 2)[..., None]  # (b, H, T, P)
    B, C = B.transpose(1, 2), C.transpose(1, 2)  # (b, 1, T, N)
    carried = since_start.exp()[..., None] * (C @ state.mT)
    y = (_decays(since_start) * (C @ B.mT)) @ written + carried
    to_end = (since_start[..., -1:] - since_start).exp()
    after = since_start[..., -1].exp()[..., None, None] * state + (written * to_end[..., None]).mT @ B
    return y.transpose(1, 2), after


def _by_segments(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None, chunk: int) -> Scanned:
    """`scan_chunked` of SEGMENT steps at a time: the same result from buffers that stay small enough to be reused."""
    parts = []
    for x_part, dt_part, B_part, C_part in zip(*(v.split(SEGMENT, dim=1) for v in (x, dt, B, C)), strict=True):
        y, state = scan_chunked(x_part, dt_part, A, B_part, C_part, state, chunk=chunk)
        parts.append(y)
    assert state is not None
    return torch.cat(parts, dim=1), state


def scan_fused(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor | None = None) -> Scanned:
    """The scan by the Triton kernels of mamba_ssm, on CUDA only; arguments and results as in `scan_sequential`."""
    kernel = _fused_kernel()
    if kernel is None:
        raise ValueError("scan_fused needs the package mamba_ssm, which is not installed; use scan_chunked, or pip install mamba-ssm.")
    return kernel(x, dt, A, B, C, chunk_size=256, initial_states=state, return_final_states=True)


@functools.cache
def _fused_kernel() -> Callable[..., Scanned] | None:
    if importlib.util.find_spec("mamba_ssm") is None:
        return None
    kernel: Callable[..., Scanned] = importlib.import_module("mamba_ssm.ops.triton.ssd_combined").mamba_chunk_scan_combined
    return kernel


def _initial(x: Tensor, B: Tensor) -> Tensor:
    return x.new_zeros(x.shape[0], x.shape[2], x.shape[3], B.shape[-1])


def _split(v: Tensor, dim: int, size: int) -> Tensor:
    """Cut `dim` into pieces of `size`, a new dimension each, after filling the last one up with zeros.

    A spare piece when exporting: torch.export would bind the model to "one piece" or to "more than one".
    """
    pieces = (v.shape[dim] + (2 * size if torch.compiler.is_exporting() else size) - 1) // size
    missing = pieces * size - v.shape[dim]
    filled = F.pad(v, (0, 0) * (v.dim() - dim - 1) + (0, missing)) if torch.compiler.is_exporting() or missing else v
    return filled.unflatten(dim, (pieces, size))


def _join(v: Tensor, T: int) -> Tensor:
    """Chunks (b, H, c, L, P) back in one row of T steps (b, H, T, P); torch.export cannot prove that a slice fits."""
    steps = v.flatten(2, 3)
    return steps.index_select(2, torch.arange(T, device=v.device)) if torch.compiler.is_exporting() else steps[:, :, :T]


def _per_head(head: Tensor, shared: Tensor) -> Tensor:
    """Product of a tensor per head (b, H, ...) and one per group of heads (b, G, ...), of shape (b, H, ...)."""
    return (head.unflatten(1, (shared.shape[1], -1)) * shared[:, :, None]).flatten(1, 2)


def _floor(log_decay: Tensor) -> Tensor:
    """Log-decays no smaller than the rounding error of the state.

    Below it nothing is left to decay, whereas huge terms in a cumulative sum cost the other terms their digits.
    """
    return log_decay.clamp(min=math.log(torch.finfo(log_decay.dtype).eps))


def _decays(cumulative: Tensor) -> Tensor:
    """Decay from after step j to after step k, zero for j > k: (..., n) cumulative log-decays to (..., n, n).

    Later steps are removed before the exponential, where they would overflow.
    """
    n = cumulative.shape[-1]
    later = torch.full((n, n), -math.inf, dtype=cumulative.dtype, device=cumulative.device).triu(1)
    return (cumulative[..., :, None] - cumulative[..., None, :]).add_(later).exp_()


def _recur(log_decay: Tensor, added: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    """States before each step (..., n, F), and after the last (..., F), of h <- exp(log_decay) h + added.

    log_decay (..., n); added (..., n, F); state (..., F) before the first step, which is what step 0 adds. One
    triangular matrix product, quadratic in n: a segment has few chunks.
    """
    n = log_decay.shape[-1]
    decays = _decays(F.pad(_floor(log_decay), (1, 0)).cumsum(-1))
    inputs = torch.cat([state[..., None, :], added], dim=-2)
    return decays[..., :n, :] @ inputs, (decays[..., n:, :] @ inputs)[..., 0, :]


class SSMState(NamedTuple):
    """What a streaming block remembers: the last inputs of its convolution (b, d_conv - 1, E), the scan's state (b, H, P, N)."""

    conv: Tensor
    scan: Tensor


class SSMBlock(nn.Module):
    """Residual layer: projection, local depthwise convolution, selective scan with skip, gate, projection.

    A bidirectional block runs half of its heads backwards in time, with decays, B and C of their own and all other
    parameters shared: both directions at the cost of one. Its convolution is centred; otherwise all is causal.
    norm: normalise the input first, which deep stacks need and shallow decoders do better without.
    """

    def __init__(
        self,
        d_model: int,
        n_heads: int = 4,
        d_state: int = 16,
        d_conv: int = 9,
        expand: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        norm: bool = False,
    ) -> None:
        super().__init__()
        self.d_inner, self.n_heads, self.d_state, self.d_conv = expand * d_model, n_heads, d_state, d_conv
        self.bidirectional, self.n_groups = bidirectional, 1 + bidirectional
        _check_heads(self.d_inner, n_heads, self.n_groups)
        self.norm = nn.LayerNorm(d_model) if norm else nn.Identity()
        self.project_in = nn.Linear(d_model, 2 * self.d_inner)
        self.conv = nn.Conv1d(self.d_inner, self.d_inner, d_conv, groups=self.d_inner)
        self.select = nn.Linear(self.d_inner, 2 * self.n_groups * d_state + n_heads)
        # dt = 0.13 and |A| = 0.5 to 4: at the start, heads remember from 2 to 16 steps.
        nn.init.constant_(self.select.bias[-n_heads:], -2.0)
        self.log_A = nn.Parameter(torch.linspace(0.5, 4.0, n_heads // self.n_groups).log().repeat(self.n_groups))
        self.skip = nn.Parameter(torch.ones(self.d_inner))
        self.project_out = nn.Linear(self.d_inner, d_model)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """x (b, T, D); mask (b, T), True = valid: the others never change a valid token. Returns (b, T, D)."""
        u, gate = self._project(x, mask)
        past = (self.d_conv - 1) // (2 if self.bidirectional else 1)
        u = self._convolve(F.pad(u, (0, 0, past, self.d_conv - 1 - past)))
        parts = (u.unflatten(-1, (self.n_heads, -1)), *self._select(u, mask))
        heads, dt, B, C = map(_turn, parts) if self.bidirectional else parts
        y, _ = scan(heads, dt, -self.log_A.exp(), B, C)
        return self._finish(x, u, _turn(y) if self.bidirectional else y, gate)

    def init_state(self, batch: int) -> SSMState:
        """The state before the first step of `batch` streams."""
        if self.bidirectional:
            raise ValueError("a bidirectional SSMBlock sees the future and cannot stream; build it with bidirectional=False.")
        new = self.log_A.new_zeros
        head = self.d_inner // self.n_heads
        return SSMState(new(batch, self.d_conv - 1, self.d_inner), new(batch, self.n_heads, head, self.d_state))

    def step(self, x: Tensor, state: SSMState) -> tuple[Tensor, SSMState]:
        """One step of a causal block: x (b, D) and the state before it to y (b, D) and the state after it."""
        y, after = self.advance(x[:, None], state)
        return y[:, 0], after

    def advance(self, x: Tensor, state: SSMState, mask: Tensor | None = None) -> tuple[Tensor, SSMState]:
        """A few steps of a causal block: x (b, T, D), mask (b, T) and the state before them to y (b, T, D) and the state after them."""
        u, gate = self._project(x, mask)
        window, few = torch.cat([state.conv, u], dim=1), x.shape[1] <= FEW
        u = self._convolve_few(window) if few else self._convolve(window)
        dt, B, C = self._select(u, mask)
        form = scan_few if few else scan
        y, after = form(u.unflatten(-1, (self.n_heads, -1)), dt, -self.log_A.exp(), B, C, state.scan)
        return self._finish(x, u, y, gate), SSMState(window[:, x.shape[1] :], after)

    def _project(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """(b, T, D) to the scan's input, 0 where nothing is valid, and the gate, (b, T, E) each."""
        u, gate = self.project_in(self.norm(x)).chunk(2, dim=-1)
        return u if mask is None else u.masked_fill(~mask[..., None], 0.0), gate

    def _convolve(self, u: Tensor) -> Tensor:
        """(b, T + d_conv - 1, E) to (b, T, E)."""
        return F.silu(self.conv(u.transpose(1, 2)).transpose(1, 2))

    def _convolve_few(self, u: Tensor) -> Tensor:
        """`_convolve` by hand: calling the convolution costs more than a few steps of it."""
        assert self.conv.bias is not None
        return F.silu((u.unfold(1, self.d_conv, 1) * self.conv.weight[:, 0]).sum(-1) + self.conv.bias)

    def _select(self, u: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """(b, T, E) to dt (b, T, H), 0 where nothing is valid, B and C (b, T, G, N)."""
        width = self.n_groups * self.d_state
        B, C, dt = self.select(u).split([width, width, self.n_heads], dim=-1)
        B, C = (v.unflatten(-1, (self.n_groups, -1)) for v in (B, C))
        dt = F.softplus(dt)
        return dt if mask is None else dt.masked_fill(~mask[..., None], 0.0), B, C / math.sqrt(self.d_state)

    def _finish(self, x: Tensor, u: Tensor, y: Tensor, gate: Tensor) -> Tensor:
        """Residual x (b, T, D), scan input u (b, T, E), scan output y (b, T, H, P), gate (b, T, E) to (b, T, D)."""
        mixed = (y.flatten(-2) + u * self.skip) * F.silu(gate)
        return x + self.dropout(self.project_out(mixed))


def _check_heads(d_inner: int, n_heads: int, n_groups: int) -> None:
    if d_inner % n_heads:
        raise ValueError(f"SSMBlock n_heads is {n_heads}; it must divide expand * d_model = {d_inner}.")
    if n_heads % n_groups:
        raise ValueError(f"SSMBlock n_heads is {n_heads}; a bidirectional block needs an even number, half of them per direction.")


def _turn(v: Tensor) -> Tensor:
    """Reverse the time of the second half of the heads or groups, (b, T, H, ...); its own inverse."""
    forwards, backwards = v.chunk(2, dim=2)
    return torch.cat([forwards, backwards.flip(1)], dim=2)
