"""The Neural Data Transformer (Ye and Pandarinath 2021): bins are tokens, and what is hidden of them is read from the others.

Shapes: B segments, T bins, N channels.
"""

import torch
from torch import Tensor, nn

from neurofm_ml.nn.attention import Transformer
from neurofm_ml.presets import RatesConfig

#: Bins over which rotary embedding tells places apart.
PERIODS = (2.0, 200.0)
DROPOUT = 0.2


class NDT(nn.Module):
    """(B, T, N) -> log rates or values (B, T, N), and no penalty."""

    def __init__(self, n_channels: int, cfg: RatesConfig) -> None:
        super().__init__()
        self.enter = nn.Linear(n_channels, cfg.d_model)
        self.body = Transformer(cfg.d_model, cfg.n_layers, cfg.n_heads, PERIODS)
        self.drop = nn.Dropout(DROPOUT)
        self.out = nn.Linear(cfg.d_model, n_channels)

    def forward(self, shown: Tensor) -> tuple[Tensor, Tensor]:
        times = torch.arange(shown.shape[1], device=shown.device).expand(shown.shape[:2])
        mixed = self.body(self.drop(self.enter(shown)), times, torch.ones(shown.shape[:2], dtype=torch.bool, device=shown.device))
        return self.out(self.drop(mixed)), torch.zeros((), device=shown.device)
