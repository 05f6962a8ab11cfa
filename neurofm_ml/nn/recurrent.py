"""The recurrent rival of the state-space block: a bidirectional GRU of equal budget."""

from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class GRUBlock(nn.Module):
    """GRU over valid steps, dropout, projection back to the width. (B, T, D), mask (B, T) -> (B, T, D).

    Masked steps must be padding at the end; three quarters of the width as hidden size gives the
    parameters of two state-space blocks.
    """

    def __init__(self, d_model: int, bidirectional: bool, dropout: float) -> None:
        super().__init__()
        hidden = 3 * d_model // 4
        self.rnn = nn.GRU(d_model, hidden, batch_first=True, bidirectional=bidirectional)
        self.out = nn.Sequential(nn.Dropout(dropout), nn.Linear(hidden * (1 + bidirectional), d_model))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, mask.sum(1).clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
        values, _ = pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=x.shape[1])
        return self.out(values)
