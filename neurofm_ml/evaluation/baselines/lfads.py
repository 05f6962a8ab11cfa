"""LFADS: a dynamical system that unfolds from an inferred start, pushed by inferred inputs (Sussillo et al. 2016; Pandarinath et
al. 2018), in compact form.

One bidirectional encoder gives the posterior of the start and what the controller reads; the prior of both start and inputs is
a unit normal (theirs of the inputs is autoregressive). Without training, posterior means are used.

Shapes: B segments, T bins, N channels, D width, F factors, U inputs.
"""

import torch
from torch import Tensor, nn

from neurofm_ml.presets import RatesConfig


class LFADS(nn.Module):
    """(B, T, N) -> log rates or values (B, T, N), and the divergence of the posteriors from their priors, per entry."""

    def __init__(self, n_channels: int, cfg: RatesConfig) -> None:
        super().__init__()
        d, f, u = cfg.d_model, cfg.n_factors, cfg.n_inputs
        self.enter = nn.Linear(n_channels, d)
        self.encoder = nn.GRU(d, d, batch_first=True, bidirectional=True)
        self.start = nn.Linear(2 * d, 2 * d)
        self.controller = nn.GRUCell(2 * d + f, d)
        self.inputs = nn.Linear(d, 2 * u)
        self.generator = nn.GRUCell(u, d)
        self.factors = nn.Linear(d, f, bias=False)
        self.out = nn.Linear(f, n_channels)

    def forward(self, shown: Tensor) -> tuple[Tensor, Tensor]:
        encoded, ends = self.encoder(self.enter(shown))
        state, divergence = self._draw(self.start(torch.cat([ends[0], ends[1]], 1)))
        control = torch.zeros_like(state)
        factors = [self.factors(state)]
        for now in encoded.unbind(1):
            control = self.controller(torch.cat([now, factors[-1]], 1), control)
            push, more = self._draw(self.inputs(control))
            state = self.generator(push, state)
            divergence = divergence + more
            factors.append(self.factors(state))
        return self.out(torch.stack(factors[1:], 1)), divergence / shown[0].numel()

    def _draw(self, posterior: Tensor) -> tuple[Tensor, Tensor]:
        """From mean and log variance (B, 2 K): a sample (B, K), and the divergence from a unit normal, a mean over segments."""
        mean, log_variance = posterior.chunk(2, 1)
        divergence = (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2
        return (mean + torch.randn_like(mean) * (log_variance / 2).exp() if self.training else mean), divergence
