"""How the parts of a loss are weighed against each other. Shapes: B batch, L latents, D width."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import cast, get_args

import torch
from torch import Tensor, nn

from neurofm_ml.presets.objectives import Weighting

#: ``weigh(model, parts, given, latents) -> (total, weights)``: the parts of a loss, the weights that the config gives
#: them, and the latents (B, L, D) that they were read from.
Weigh = Callable[[nn.Module, Mapping[str, Tensor], Mapping[str, float], Sequence[Tensor]], tuple[Tensor, Mapping[str, Tensor | float]]]

#: Largest logarithm of a learned weight, either way.
LIMIT = 3.0


def weigh_fixed(
    model: nn.Module, parts: Mapping[str, Tensor], given: Mapping[str, float], latents: Sequence[Tensor]
) -> tuple[Tensor, Mapping[str, Tensor | float]]:
    """The weights as they are given."""
    return _sum(parts, given), {name: given[name] for name in parts}


def weigh_by_gradient(
    model: nn.Module, parts: Mapping[str, Tensor], given: Mapping[str, float], latents: Sequence[Tensor]
) -> tuple[Tensor, Mapping[str, Tensor | float]]:
    """Parts pull at the latents as strongly as their given weights say, whatever the scale they are measured in.

    GradNorm (Chen et al. 2018) with equal rates of training, solved at each update instead of followed by descent, so
    that nothing has to be kept: the norm of each weighted gradient is its given weight times the mean norm. A part that
    does not pull keeps its weight.
    """
    pulls = {name: _pull(part, latents) for name, part in parts.items()}
    pulling = {name: (pull > 0).float() * given[name] for name, pull in pulls.items()}
    mean = _sum(pulls, pulling) / torch.stack(list(pulling.values())).sum().clamp(min=1e-12)
    weights = {name: given[name] * torch.where(pull > 0, mean / pull.clamp(min=1e-12), 1.0) for name, pull in pulls.items()}
    return _sum(parts, weights), weights


def weigh_by_uncertainty(
    model: nn.Module, parts: Mapping[str, Tensor], given: Mapping[str, float], latents: Sequence[Tensor]
) -> tuple[Tensor, Mapping[str, Tensor | float]]:
    """Each part by one over a learned variance, whose logarithm is the price of it (Kendall et al. 2018)."""
    logs = cast(LogVariance, model.log_variance)
    variances = {name: logs(name) for name in parts}
    weights = {name: given[name] * torch.exp(-log) for name, log in variances.items()}
    return _sum(parts, weights) + _sum(variances, given), {name: weight.detach() for name, weight in weights.items()}


WEIGHINGS: dict[Weighting, Weigh] = {"fixed": weigh_fixed, "uncertainty": weigh_by_uncertainty, "gradient_norm": weigh_by_gradient}
assert tuple(WEIGHINGS) == get_args(Weighting)


class LogVariance(nn.Module):
    """A learned log variance per objective, within +- LIMIT.

    A likelihood of counts may be negative, and then nothing else would keep its weight from growing without end.
    """

    def __init__(self, objectives: Sequence[str]) -> None:
        super().__init__()
        self.raw = nn.ParameterDict({name: nn.Parameter(torch.zeros(1)) for name in objectives})

    def forward(self, objective: str) -> Tensor:
        """() the log variance."""
        return LIMIT * torch.tanh(self.raw[objective][0] / LIMIT)


@contextmanager
def balanced(model: nn.Module, weighting: Weighting, objectives: Sequence[str]) -> Iterator[None]:
    """While it lasts, whatever the weighting learns is a part of `model`: trained, averaged, saved and resumed with it."""
    if weighting == "uncertainty":
        model.log_variance = LogVariance(objectives)
    try:
        yield
    finally:
        if weighting == "uncertainty":
            del model.log_variance


def _sum(parts: Mapping[str, Tensor], weights: Mapping[str, Tensor | float]) -> Tensor:
    return torch.stack([weights[name] * part for name, part in parts.items()]).sum()


def _pull(part: Tensor, latents: Sequence[Tensor]) -> Tensor:
    """() norm of the gradient of a part with respect to the latents, 0 where it does not depend on them."""
    if not part.requires_grad:
        return torch.zeros_like(part)
    gradients = torch.autograd.grad(part, latents, retain_graph=True, allow_unused=True)
    return torch.stack([g.float().square().sum() for g in gradients if g is not None] or [torch.zeros_like(part)]).sum().sqrt()
