"""Expected activity, inferred from noisy activity by a network that sees nothing else; what LFADS and NDT share.

Parts of each segment are hidden and the loss is on these alone (coordinated dropout: Keshtkaran and Pandarinath 2019; masked
modelling: Ye and Pandarinath 2021), so that no network can copy what it sees. Whole channels are hidden too: that makes one
network good for inferring channels it is not shown (co-smoothing). The loop is its own and not `training.loop.fit`: a fit
takes seconds on arrays in memory, and neither batches nor checkpoints of it are wanted.

Shapes: B segments, T bins, N channels.
"""

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neurofm_ml.presets import RatesConfig
from neurofm_ml.training.schedule import warmup_cosine
from neurofm_ml.types import Array

WARMUP = 0.1
#: Deviations that input is held within, as for other models: a unit that fires once in a hundred bins would outweigh all.
LIMIT = 3.0
#: Log rates are capped, as in objectives.base.misfit, so that no step can overflow.
MOST_LOG_RATE = 8.0

#: (N, config) -> network: shown (B, T, N) -> guess (B, T, N), log rates for counts, and a penalty (0-d) per entry.
MakeNetwork = Callable[[int, RatesConfig], nn.Module]


@dataclass(frozen=True, eq=False)
class RatesFit:
    """The network, mean and deviation (N,) of its input, and the seconds its fit took."""

    network: nn.Module
    mean: Array
    std: Array
    counts: bool
    segment: int
    seconds: float

    @property
    def parameters(self) -> int:
        return sum(p.numel() for p in self.network.parameters())

    @torch.no_grad()
    def guess(self, x: Array, held_out: Array | None = None) -> Array:
        """(T, N) log rates of counts, or values, from contiguous activity x (T, N); channels `held_out` (N,) are not looked at."""
        shown = _shown(x, self.mean, self.std, self.counts)
        if held_out is not None:
            shown[:, torch.from_numpy(held_out)] = 0.0
        length = min(self.segment, len(x))
        starts = np.unique(np.r_[np.arange(0, len(x) - length, max(length // 2, 1)), len(x) - length])
        weight = torch.hann_window(length + 2, periodic=False)[1:-1, None] + 0.05
        total, share = torch.zeros(x.shape), torch.zeros(len(x), 1)
        pieces = torch.cat([self.network(part)[0] for part in torch.stack([shown[s : s + length] for s in starts]).split(64)])
        for start, piece in zip(starts, pieces, strict=True):
            total[start : start + length] += weight * piece
            share[start : start + length] += weight
        return (total / share).double().numpy()


def fit_rates(make: MakeNetwork, train: Array, validation: Array, counts: bool, cfg: RatesConfig, seed: int) -> RatesFit:
    """Fitted on the training block (T, N); of the states on the way the one that is best on the validation block is kept."""
    began = time.perf_counter()
    seen = np.sqrt(train) if counts else train
    mean, std = seen.mean(0), np.where(seen.std(0) > 0, seen.std(0), 1.0)
    fitted, judged = (_Block(_shown(x, mean, std, counts), torch.from_numpy(x).float(), counts) for x in (train, validation))
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        network = make(train.shape[1], cfg)
        _start_at(network, train, counts)
        _train(network, fitted, judged, cfg, torch.Generator().manual_seed(seed))
    return RatesFit(network.eval(), mean, std, counts, cfg.segment, time.perf_counter() - began)


def hide(shape: Sequence[int], cfg: RatesConfig, generator: torch.Generator) -> Tensor:
    """(B, T, N) True where activity is hidden: entries, whole bins, whole channels."""
    b, t, n = shape
    entries = torch.rand(shape, generator=generator) < cfg.elements
    bins = torch.rand(b, t, 1, generator=generator) < cfg.bins
    share = cfg.channels * torch.rand(b, 1, 1, generator=generator)
    return entries | bins | (torch.rand(b, 1, n, generator=generator) < share)


def misfit(guess: Tensor, truth: Tensor, counts: bool) -> Tensor:
    """Poisson likelihood of counts given log rates, squared error of other values, entry by entry."""
    if counts:
        return F.poisson_nll_loss(guess.clamp(max=MOST_LOG_RATE), truth, log_input=True, reduction="none")
    return (guess - truth).square() / 2


def _shown(x: Array, mean: Array, std: Array, counts: bool) -> Tensor:
    z = ((np.sqrt(x) if counts else x) - mean) / std
    return torch.from_numpy(z.clip(-LIMIT, LIMIT)).float()


def _start_at(network: nn.Module, train: Array, counts: bool) -> None:
    """The guess of a fresh network is the mean of each channel."""
    mean = torch.from_numpy(train.mean(0)).float()
    assert isinstance(network.out, nn.Linear)
    with torch.no_grad():
        network.out.weight.mul_(0.1)
        network.out.bias.copy_((mean + 1e-3).log() if counts else mean)


@dataclass(frozen=True)
class _Block:
    """What the network is shown and what is true, (T, N)."""

    shown: Tensor
    truth: Tensor
    counts: bool

    def segments(self, length: int, n: int, generator: torch.Generator) -> "_Block":
        """(n, length, N) at random."""
        length = min(length, len(self.shown))
        starts = torch.randint(len(self.shown) - length + 1, (n, 1), generator=generator)
        bins = starts + torch.arange(length)
        return _Block(self.shown[bins], self.truth[bins], self.counts)


def _train(network: nn.Module, train: _Block, validation: _Block, cfg: RatesConfig, generator: torch.Generator) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=cfg.lr, weight_decay=cfg.weight_decay, fused=True)
    best, kept = torch.inf, network.state_dict()
    for step in range(cfg.updates):
        for group in optimizer.param_groups:
            group["lr"] = cfg.lr * warmup_cosine(step, cfg.updates, WARMUP)
        loss = _loss(network.train(), train.segments(cfg.segment, cfg.batch_size, generator), cfg, generator, step / cfg.updates)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        if (step + 1) % cfg.look_every == 0 or step + 1 == cfg.updates:
            value = _validated(network.eval(), validation, cfg)
            if value < best:
                best, kept = value, copy.deepcopy(network.state_dict())
    network.load_state_dict(kept)


def _loss(network: nn.Module, block: _Block, cfg: RatesConfig, generator: torch.Generator, progress: float) -> Tensor:
    """Misfit of what is hidden; the penalty grows in over the first half, lest it win before there is anything to tell."""
    hidden = hide(block.shown.shape, cfg, generator)
    guess, penalty = network(block.shown.masked_fill(hidden, 0.0))
    error = (misfit(guess, block.truth, block.counts) * hidden).sum() / hidden.sum().clamp(min=1)
    return error + min(2 * progress, 1.0) * cfg.kl * penalty


@torch.no_grad()
def _validated(network: nn.Module, block: _Block, cfg: RatesConfig) -> float:
    """Misfit of what is hidden of the validation block: the same segments and entries at every look."""
    generator = torch.Generator().manual_seed(0)
    n = max(2 * len(block.shown) // cfg.segment, cfg.batch_size)
    return float(_loss(network, block.segments(cfg.segment, n, generator), cfg, generator, 0.0))
