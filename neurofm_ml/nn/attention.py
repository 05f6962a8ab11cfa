"""Multi-head attention over tokens that stand at real times.

Rotary embedding (Su et al. 2021) turns queries and keys by angles proportional to seconds, so that what two tokens
make of each other depends on the time between them, whatever the sampling rate. Everything runs through PyTorch's
fused `scaled_dot_product_attention`.

Shapes: B batch, T tokens, P patches of time, C channels (or parcels), H heads, D width.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Periods (seconds) between which rotary embedding spreads, for signals of seconds to minutes.
SLOW = (2.0, 1000.0)
#: Bias with which queries and keys of the most local head start.
LOCALITY = 1.5


class Rotary(nn.Module):
    """Angles of tokens at given times: periods evenly spaced in their logarithm between two numbers of seconds."""

    rates: Tensor

    def __init__(self, d_head: int, periods_s: tuple[float, float]) -> None:
        super().__init__()
        shortest, longest = (math.log10(period) for period in periods_s)
        self.register_buffer("rates", 2 * math.pi / torch.logspace(shortest, longest, d_head // 2), persistent=False)

    def forward(self, times: Tensor) -> Tensor:
        """times (B, T) seconds -> (B, 1, T, D / 2H) radians."""
        return times[:, None, :, None] * self.rates


def rotate(x: Tensor, angles: Tensor) -> Tensor:
    """x (B, H, T, D / H), its two halves turned against each other by angles (B, 1, T, D / 2H)."""
    a, b = x.chunk(2, -1)
    sine, cosine = angles.sin(), angles.cos()
    return torch.cat([a * cosine - b * sine, a * sine + b * cosine], -1).to(x.dtype)


class Attention(nn.Module):
    """Self-attention; angles None: tokens without a time."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.project = nn.Linear(d_model, 3 * d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor, angles: Tensor | None, mask: Tensor) -> Tensor:
        """x (B, T, D), mask (B, 1, T or 1, T) True where the row may read the column -> (B, T, D).

        A row that may read nothing gives the bias of the output.
        """
        q, k, v = self.project(x).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        if angles is not None:
            q, k = rotate(q, angles), rotate(k, angles)
        # Kernels differ in what they make of a row that may read nothing, NaN too: it reads all, which is then dropped.
        readable = mask.any(-1, keepdim=True)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask | ~readable) * readable
        return self.out(mixed.transpose(1, 2).flatten(2))


def local(attention: Attention) -> Attention:
    """`attention` with heads that start out reading all times evenly, to mostly their own, and learn how far to look.

    Equal biases of queries and keys, once turned by rotary embedding, favour tokens of like times.
    """
    d_head = attention.out.in_features // attention.n_heads
    with torch.no_grad():
        per_channel = torch.linspace(0.0, LOCALITY, attention.n_heads).repeat_interleave(d_head)
        attention.project.bias[: 2 * len(per_channel)] = per_channel.repeat(2)
    return attention


class Block(nn.Module):
    """Attention among all tokens, then a feed-forward layer, each on its normalised input (Xiong et al. 2020)."""

    def __init__(self, d_model: int, n_heads: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.attention = local(Attention(d_model, n_heads))
        self.feed = feed_forward(d_model)

    def forward(self, x: Tensor, angles: Tensor, mask: Tensor) -> Tensor:
        """As `Attention`."""
        x = x + self.attention(self.norm(x), angles, mask)
        return x + self.feed(x)


class AxialBlock(nn.Module):
    """Attention over time within a channel, then over the channels of a patch of time, then feed-forward, each on its
    normalised input (Bertasius et al. 2021; Arnab et al. 2021, model 3), at a cost of P + C for each token instead of P C.

    causal: a channel reads its own past alone.
    """

    def __init__(self, d_model: int, n_heads: int, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.norms = nn.ModuleList(nn.LayerNorm(d_model) for _ in range(2))
        self.in_time, self.in_space = Attention(d_model, n_heads), Attention(d_model, n_heads)
        self.feed = feed_forward(d_model)

    def forward(self, x: Tensor, angles: Tensor, mask: Tensor) -> Tensor:
        """x (B, P, C, D), angles (B, 1, P, D / 2H), mask (B, P, C) True = valid -> (B, P, C, D)."""
        b, p, c, _ = x.shape
        then = mask.mT.flatten(0, 1)[:, None, None]
        if self.causal:
            then = then & torch.ones(p, p, dtype=torch.bool, device=x.device).tril()
        own = self.norms[0](x).transpose(1, 2).flatten(0, 1)
        x = x + self.in_time(own, angles.repeat_interleave(c, 0), then).unflatten(0, (b, c)).transpose(1, 2)
        here = self.norms[1](x).flatten(0, 1)
        x = x + self.in_space(here, None, mask.flatten(0, 1)[:, None, None]).unflatten(0, (b, p))
        return x + self.feed(x)


class Transformer(nn.Module):
    """Blocks over tokens with times, and a norm without weights: what comes out has unit size, channel by channel comparable."""

    def __init__(self, d_model: int, n_layers: int, n_heads: int, periods_s: tuple[float, float] = SLOW) -> None:
        super().__init__()
        self.rotary = Rotary(d_model // n_heads, periods_s)
        self.blocks = nn.ModuleList(Block(d_model, n_heads) for _ in range(n_layers))
        self.norm = nn.LayerNorm(d_model, elementwise_affine=False)

    def forward(self, x: Tensor, times: Tensor, mask: Tensor) -> Tensor:
        """x (B, T, D), times (B, T) seconds, mask (B, T) True = valid -> (B, T, D)."""
        angles = self.rotary(times)
        for block in self.blocks:
            x = block(x, angles, mask[:, None, None])
        return self.norm(x)


def feed_forward(d_model: int) -> nn.Sequential:
    """Four times as wide within."""
    return nn.Sequential(nn.LayerNorm(d_model), nn.Linear(d_model, 4 * d_model), nn.GELU(), nn.Linear(4 * d_model, d_model))
