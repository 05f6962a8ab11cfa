"""The recurrent rival of the state-space block: a GRU of equal budget.

Shapes: B batch, T steps, D width.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class GRUBlock(nn.Module):
    """GRU, dropout, projection back to the width. Three quarters of the width as hidden size gives the
    parameters of two state-space blocks."""

    def __init__(self, d_model: int, bidirectional: bool, dropout: float) -> None:
        super().__init__()
        hidden = 3 * d_model // 4
        self.rnn = nn.GRU(d_model, hidden, batch_first=True, bidirectional=bidirectional)
        self.out = nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden * (1 + bidirectional), d_model))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """x (B, T, D), mask (B, T) True = valid -> (B, T, D). What lies at other steps is not read; those at the end are passed over."""
        steps = torch.arange(1, x.shape[1] + 1, device=x.device)
        lengths = (steps * mask).amax(1).clamp(min=1)
        packed = pack_padded_sequence(x * mask[..., None], lengths.cpu(), batch_first=True, enforce_sorted=False)
        values, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=x.shape[1])
        return self.out(values)
