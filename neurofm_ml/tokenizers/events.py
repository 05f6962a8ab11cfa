"""Spikes one by one: a token per spike, at its own time.

Azabou et al. 2023, "A unified, scalable framework for neural population decoding" (POYO): a spike is the embedding of its
unit, turned by its time (rotary embedding).

Shapes: B batch, T bins, C units, E events, D width.
"""

import torch
from torch import Tensor

from neurofm_ml.nn.attention import Rotary, rotate
from neurofm_ml.tokenizers.base import TOKENIZERS, Tokenizer
from neurofm_ml.types import StreamBatch, TokenizedSequence

#: Periods (seconds) between which the angles of spikes spread; float32 knows them to a ten-thousandth of a turn in a minute.
PERIODS_S = (0.01, 20.0)


@TOKENIZERS.register("spike_events")
class SpikeEventTokenizer(Tokenizer):
    """A token per spike: half of its unit's embedding as it is, half turned by the spike's time.

    A spike stands in the middle of the bin it was counted in: its time is as exact as the bins (a card's `grid_hz` of 1000
    makes that half a millisecond). A hidden bin is one mask token, however many spikes it held. `d_model` is a multiple of 4.
    """

    def __init__(self, channel_std: Tensor, d_model: int) -> None:
        super().__init__(channel_std, d_model)
        self.rotary = Rotary(d_model // 2, PERIODS_S)

    def forward(self, stream: StreamBatch, hidden: Tensor | None = None) -> TokenizedSequence:
        if stream.counts is None:
            raise ValueError(f"tokenizer 'spike_events' reads counts of spikes, and {stream.modality} has none; use another one for it.")
        counts = stream.counts * stream.valid
        hidden = stream.mask & (torch.zeros_like(stream.mask) if hidden is None else hidden)
        # Hidden bins hold nothing but one spike of a unit that is the mask.
        counts = torch.cat([counts.masked_fill(hidden[..., None], 0), hidden[..., None]], -1).long()
        who = torch.cat([self.who(stream), self.mask_token.expand(len(counts), 1, -1)], 1)
        row, unit, times, mask = _listed(counts, stream.times + stream.dt[:, None] / 2)
        tokens = who[row, unit] * mask[..., None]
        still, turned = tokens.chunk(2, -1)
        turned = rotate(turned[:, None], self.rotary(times))[:, 0]
        return TokenizedSequence(
            torch.cat([still, turned], -1), mask, times, stream.t0, torch.full_like(stream.dt, torch.nan), stream.modality
        )


def _listed(counts: Tensor, times: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """counts (B, T, C) at times (B, T) -> row (B, 1) of the batch, unit (B, E), time (B, E) and mask (B, E) of every event,
    in the order of their times; padding stands where a window's last event does."""
    n_rows, _, n_units = counts.shape
    per_row = counts.flatten(1).sum(1)
    slots = torch.arange(max(1, int(per_row.max())), device=counts.device)
    mask = slots < per_row[:, None]
    # Event e of a window lies in the first cell at which more than e events have been counted.
    total = counts.flatten(1).cumsum(1)
    last = (per_row[:, None] - 1).clamp(min=0)
    cell = torch.searchsorted(total, torch.minimum(slots, last), right=True).clamp(max=total.shape[1] - 1)
    rows = torch.arange(n_rows, device=counts.device)[:, None]
    return rows, cell % n_units, times.gather(1, cell // n_units), mask
