"""Elastic weights: information against closed forms, and what is forgotten with and without them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from neurofm_ml import presets
from neurofm_ml.config import patch
from neurofm_ml.data.batches import build_vocabulary
from neurofm_ml.models import NeuroFMx
from neurofm_ml.presets import TrainConfig
from neurofm_ml.training.continual import decoded, elastic, fisher_diagonal, learn_in_turn, remember, summary
from neurofm_ml.training.decoders import problem_batches
from neurofm_ml.training.loop import fit

CFG = patch(presets.neurofmx("tiny"), {"d_model": 16, "n_heads": 2, "d_state": 4})


class Plane(nn.Module):
    """y (B, K) = x (B, D) W' + b."""

    def __init__(self, d: int, k: int) -> None:
        super().__init__()
        self.map = nn.Linear(d, k)
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.map(x)
        return out


def flat(model: nn.Module, x: Tensor) -> Tensor:
    out: Tensor = model(x).flatten()
    return out


def test_information_of_a_linear_gaussian_model_is_its_second_moment():
    """d y_k / d W_kd = x_d: the mean over outputs of its square is mean(x_d^2) / K, that of the bias 1 / K."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 5, generator=generator) * torch.tensor([0.0, 0.5, 1.0, 2.0, 3.0])
    found = fisher_diagonal(Plane(5, 2), list(x.split(1)), flat, generator)
    assert torch.allclose(found["map.weight"], (x.square().mean(0) / 2).expand(2, 5), rtol=1e-5)
    assert torch.allclose(found["map.bias"], torch.full((2,), 0.5))
    assert not found["unused"].any()


def test_signs_make_a_batch_as_good_as_its_windows():
    """Products of different windows average out over draws; a sum without signs would not forget them."""
    generator = torch.Generator().manual_seed(0)
    x = 1 + torch.randn(32, 4, generator=generator)
    found = fisher_diagonal(Plane(4, 1), [x] * 1000, flat, generator)["map.weight"][0]
    assert torch.allclose(found, x.square().mean(0), rtol=0.2)
    assert (x.sum(0).square() / 32 > 5 * found).all()


def test_information_of_the_model_is_that_of_one_output_at_a_time(problems, scaler, shards):
    problem = next(p for p in problems if p.inputs == ("spikes",))
    torch.manual_seed(0)
    model = NeuroFMx(CFG, build_vocabulary([shards])).eval()
    batch = next(iter(problem_batches(model, problem, scaler, "train", 1, seed=0)))
    batch.targets["simulation/behaviour"][:, 3:] = torch.nan
    batch.targets["simulation/first"][:] = torch.nan
    weight, outputs = model.fusion.out.weight, decoded(model, batch)
    slow = torch.stack([torch.autograd.grad(y, weight, retain_graph=True)[0].square() for y in outputs]).mean(0)
    assert len(outputs) == 6
    found = fisher_diagonal(model, [batch] * 60, decoded, torch.Generator().manual_seed(0))["fusion.out.weight"]
    assert torch.linalg.norm(found - slow) < 0.35 * torch.linalg.norm(slow)


# ---------------------------------------------------------------- the penalty
def test_the_penalty_is_what_the_earlier_error_grows_by():
    """For a linear model of uncorrelated inputs the diagonal is all there is."""
    x = torch.cat([torch.diag(torch.tensor([1.0, 2.0, 3.0])), -torch.diag(torch.tensor([1.0, 2.0, 3.0]))])
    model = Plane(3, 1)
    y = model(x).detach()
    memory = remember(model, fisher_diagonal(model, list(x.split(1)), flat, torch.Generator().manual_seed(0)), None)
    with torch.no_grad():
        for p in model.parameters():
            p += torch.randn(p.shape, generator=torch.Generator().manual_seed(1))
    assert memory.penalty(model).item() == pytest.approx((model(x) - y).square().mean().item(), rel=1e-5)


def test_information_adds_up_and_the_last_weights_are_the_anchor():
    model = Plane(2, 1)
    ones = {name: torch.ones_like(p) for name, p in model.named_parameters()}
    first = remember(model, ones, None)
    nn.init.constant_(model.map.weight, 7.0)
    second = remember(model, ones, first)
    assert second.penalty(model) == 0
    assert all((value == 2).all() for value in second.information.values())
    assert (first.information["map.weight"] == 1).all()


class Regression:
    """Endless batches of one linear task: inputs of covariance `scale`, targets `truth` x."""

    def __init__(self, truth: Tensor, scale: Tensor, seed: int) -> None:
        self.truth, self.scale, self.seed, self.position = truth, scale, seed, 0

    def __iter__(self) -> Iterator[Tensor]:
        while True:
            x = torch.randn(32, len(self.scale), generator=torch.Generator().manual_seed(1000 * self.seed + self.position)) * self.scale
            self.position += 1
            yield torch.cat([x, (x @ self.truth)[:, None]], 1)

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


def squared(model: nn.Module, batch: Tensor, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
    return (model(batch[:, :-1])[:, 0] - batch[:, -1]).square().mean(), {}


@pytest.mark.parametrize(("strength", "forgets", "learns"), [(0.0, (0.5, 9.0), (0.0, 0.02)), (10.0, (0.0, 0.1), (0.2, 0.5))])
def test_elastic_weights_keep_the_first_task_and_learn_the_second_at_a_cost(tmp_path: Path, strength, forgets, learns):
    """The first task hears two inputs loudly; the second hears the others, and these two faintly with other weights."""
    first = Regression(torch.tensor([1.0, -1.0, 0.0, 0.0]), torch.tensor([1.0, 1.0, 0.1, 0.1]), 1)
    second = Regression(torch.tensor([-0.5, 0.5, 2.0, -2.0]), torch.tensor([0.3, 0.3, 1.0, 1.0]), 2)
    torch.manual_seed(0)
    model, cfg = Plane(4, 1), TrainConfig(steps=150, lr=0.1, ema=0.0, weight_decay=0.0, checkpoint_every=150)
    fit(model, first, squared, cfg, tmp_path / "first", seed=0)
    windows = [batch[:, :-1] for _, batch in zip(range(20), first, strict=False)]
    memory = remember(model, fisher_diagonal(model, windows, flat, torch.Generator().manual_seed(0)), None)
    fit(model, second, elastic(squared, memory, strength), cfg, tmp_path / "second", seed=0)
    errors = [squared(model, next(iter(task)), torch.Generator(), 1.0)[0].item() for task in (first, second)]
    assert forgets[0] <= errors[0] < forgets[1]
    assert learns[0] <= errors[1] < learns[1]


# ---------------------------------------------------------------- the job's parts
def test_the_summary_counts_what_was_lost_since_it_was_learned():
    rows = [("a", "a", 0.8), ("b", "a", 0.5), ("b", "b", 0.6), ("c", "a", 0.4), ("c", "b", 0.5), ("c", "c", 0.7)]
    found = summary(pd.DataFrame(rows, columns=["after", "on", "r2"]))
    assert found == pytest.approx({"learned": 0.7, "final": 1.6 / 3, "forgotten": 0.25})


@pytest.mark.slow
def test_sessions_of_the_simulation_are_forgotten_less_with_elastic_weights(tmp_path, problems, scaler, shards):
    both = [next(p for p in problems if p.inputs == ("spikes",) and p.session == session) for session in ("one", "two")]
    cfg = patch(presets.continual("tiny"), {"train": {"steps": 150, "checkpoint_every": 150}})
    found = {}
    for strength in (0.0, cfg.strength):
        torch.manual_seed(0)
        model = NeuroFMx(CFG, build_vocabulary([shards]))
        found[strength] = learn_in_turn(cfg, model, both, scaler, strength, tmp_path)[1]
    plain, held = found.values()
    assert np.array_equal(plain[0], held[0], equal_nan=True)
    assert held[0, 0] - held[1, 0] < plain[0, 0] - plain[1, 0]
