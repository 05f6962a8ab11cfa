"""Token sequences of any rates put on one clock.

Tick k of the clock covers ``[t0 + k dt, t0 + (k + 1) dt)``. A token of a regular sequence stands in the middle of the time it
covers, which follows from its t0 and dt; an irregular one (dt NaN) stands at its own time. Times are computed in float64, and a
thousandth of a step absorbs the rounding of float32 steps. A tick that a method can say nothing of is False in the mask: nothing
is carried across a gap or beyond an end.

Shapes: B batch, T tokens, N ticks, D width.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from neurofm_ml.types import TokenizedSequence

How = Literal["nearest", "interpolate", "aggregate"]
#: Of a step.
TOLERANCE = 1e-3


def align(sequences: Sequence[TokenizedSequence], t0: Tensor, dt: Tensor, n: int, how: How) -> list[TokenizedSequence]:
    """The sequences on the clock of `n` ticks of `dt` (B,) seconds from `t0` (B,) seconds.

    nearest      the token nearest to the middle of the tick, the earlier of two, where it is no further than half a step of the
                 sequence or of the clock
    interpolate  the line between the tokens to either side; of a regular sequence, only between neighbours
    aggregate    the mean of the tokens that stand in the tick
    """
    if how not in _METHODS:
        raise ValueError(f"how is {how!r}; allowed: {', '.join(_METHODS)}.")
    return [_on_clock(sequence, t0, dt, n, _METHODS[how]) for sequence in sequences]


def centres(sequence: TokenizedSequence) -> Tensor:
    """(B, T) float64 seconds at which the tokens stand."""
    steps = torch.arange(sequence.tokens.shape[1], device=sequence.t0.device) + 0.5
    regular = sequence.t0.double()[:, None] + steps * sequence.dt.double()[:, None]
    return torch.where(sequence.dt.isnan()[:, None], sequence.times.double(), regular)


#: (tokens (B, T, D), mask (B, T), their times (B, T), their step (B, 1), ticks (B, N), their step (B, 1)) -> values (B, N, D), mask (B, N).
_Method = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def _on_clock(sequence: TokenizedSequence, t0: Tensor, dt: Tensor, n: int, method: _Method) -> TokenizedSequence:
    starts = t0.double()[:, None] + torch.arange(n, device=t0.device) * dt.double()[:, None]
    step = dt.double()[:, None]
    tokens, mask = method(sequence.tokens, sequence.mask, centres(sequence), sequence.dt.double()[:, None], starts + step / 2, step)
    return replace(sequence, tokens=tokens * mask[..., None], mask=mask, times=starts.to(sequence.times), t0=t0, dt=dt)


def _nearest(tokens: Tensor, mask: Tensor, times: Tensor, step: Tensor, ticks: Tensor, tick_step: Tensor) -> tuple[Tensor, Tensor]:
    before, after = _around(mask, times, ticks)
    reach = (0.5 + TOLERANCE) * torch.fmax(step, tick_step)
    early, late = (_distance(index, times, ticks) for index in (before, after))
    index = torch.where(early <= late + TOLERANCE * tick_step, before, after)
    return _take(tokens, index), torch.minimum(early, late) <= reach


def _interpolate(tokens: Tensor, mask: Tensor, times: Tensor, step: Tensor, ticks: Tensor, tick_step: Tensor) -> tuple[Tensor, Tensor]:
    before, after = _around(mask, times, ticks)
    early, late = (_distance(index, times, ticks) for index in (before, after))
    exact = TOLERANCE * torch.fmin(step, tick_step)
    hit_early, hit_late = early <= exact, late <= exact
    between = early.isfinite() & late.isfinite() & (step.isnan() | (after - before == 1))
    alone = torch.where(hit_early, 0.0, 1.0)
    share = torch.where(between, early / (early + late).clamp(min=1e-300), alone)[..., None].to(tokens)
    return _take(tokens, before) * (1 - share) + _take(tokens, after) * share, between | hit_early | hit_late


def _aggregate(tokens: Tensor, mask: Tensor, times: Tensor, step: Tensor, ticks: Tensor, tick_step: Tensor) -> tuple[Tensor, Tensor]:
    n = ticks.shape[1]
    place = torch.floor((times - ticks[:, :1]) / tick_step + 0.5 + TOLERANCE)
    inside = mask & (place >= 0) & (place < n)
    place = torch.where(inside, place, n).long()
    # Tokens outside are gathered in a tick after the last.
    total = tokens.new_zeros(len(tokens), n + 1, tokens.shape[2]).scatter_add_(1, place[..., None].expand_as(tokens), tokens)
    count = tokens.new_zeros(len(tokens), n + 1).scatter_add_(1, place, inside.to(tokens))
    return (total / count.clamp(min=1)[..., None])[:, :n], count[:, :n] > 0


_METHODS: dict[str, _Method] = {"nearest": _nearest, "interpolate": _interpolate, "aggregate": _aggregate}


def _around(mask: Tensor, times: Tensor, ticks: Tensor) -> tuple[Tensor, Tensor]:
    """Indices (B, N) of the last valid token at or before each tick, -1 for none, and of the first after it, T for none."""
    n_tokens = mask.shape[1]
    index = torch.arange(n_tokens, device=mask.device).expand_as(mask)
    last = torch.where(mask, index, -1).cummax(1).values
    first = torch.where(mask, index, n_tokens).flip(1).cummin(1).values.flip(1)
    right = torch.searchsorted(times.contiguous(), ticks.contiguous(), right=True)
    before = torch.where(right > 0, last.gather(1, (right - 1).clamp(min=0)), -1)
    after = torch.where(right < n_tokens, first.gather(1, right.clamp(max=n_tokens - 1)), n_tokens)
    return before, after


def _distance(index: Tensor, times: Tensor, ticks: Tensor) -> Tensor:
    """(B, N) seconds between ticks and the tokens of these indices, infinite where there is none."""
    n_tokens = times.shape[1]
    distance = (times.gather(1, index.clamp(0, n_tokens - 1)) - ticks).abs()
    return distance.masked_fill((index < 0) | (index >= n_tokens), torch.inf)


def _take(tokens: Tensor, index: Tensor) -> Tensor:
    """tokens (B, T, D), index (B, N) -> (B, N, D)."""
    return tokens.gather(1, index.clamp(0, tokens.shape[1] - 1)[..., None].expand(-1, -1, tokens.shape[2]))
