"""The contract of every objective: finite, with a gradient, least at the truth, blind to padding, 0 when nothing is there."""

from types import SimpleNamespace

import pytest
import torch

from neurofm_ml.objectives import OBJECTIVES, Activity, Truth


def truth_and_best() -> tuple[Truth, SimpleNamespace]:
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(2, 6, 2, generator=generator)
    target[0, 1, 0] = float("nan")
    counts = torch.poisson(torch.full((2, 6, 3, 1), 3.0), generator=generator) + 1
    scored = torch.rand(2, 6, 3, generator=generator) < 0.5
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[1, 4:] = False
    truth = Truth({"t": target}, mask, {"s": Activity(counts, scored, counts=True), "c": Activity(counts / 3, scored, counts=False)})
    return truth, SimpleNamespace(behaviour={"t": target.nan_to_num()}, activity={"s": counts.log(), "c": counts / 3})


def moved(best: SimpleNamespace, by: float) -> SimpleNamespace:
    return SimpleNamespace(**{k: {n: (v + by).requires_grad_() for n, v in getattr(best, k).items()} for k in ("behaviour", "activity")})


@pytest.fixture(params=list(OBJECTIVES))
def objective(request):
    return OBJECTIVES[request.param]


def test_finite_and_has_a_gradient(objective):
    truth, best = truth_and_best()
    guess = moved(best, 0.3)
    loss = objective(guess, truth)
    loss.backward()
    grads = [v.grad for group in (guess.behaviour, guess.activity) for v in group.values() if v.grad is not None]
    assert loss.isfinite()
    assert all(g.isfinite().all() for g in grads)
    assert any(g.abs().sum() > 0 for g in grads)


@pytest.mark.parametrize("by", [-0.5, 0.1, 1.0])
def test_least_at_the_truth(objective, by):
    truth, best = truth_and_best()
    assert objective(moved(best, by), truth) > objective(best, truth)


def test_blind_to_padding_and_to_what_was_shown(objective):
    truth, best = truth_and_best()
    other = moved(best, 0.0)
    other = SimpleNamespace(
        behaviour={"t": torch.where(truth.mask[..., None], other.behaviour["t"], 99.0)},
        activity={n: torch.where(truth.activity[n].scored[..., None], v, 5.0) for n, v in other.activity.items()},
    )
    assert torch.allclose(objective(other, truth), objective(best, truth))


def test_zero_when_there_is_nothing_to_score(objective):
    mask = torch.ones(2, 6, dtype=torch.bool)
    assert objective(SimpleNamespace(behaviour={}, activity={}), Truth({}, mask, {})) == 0
