"""The contract of every objective: finite, with a gradient, least at the truth, blind to padding, 0 when nothing is there.

Shapes: 2 windows of 6 bins, 6 patches of 3 channels and 1 sample, 2 horizons, embeddings of width 11.
"""

import dataclasses
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from neurofm_ml.objectives import OBJECTIVES, Activity, Target, Truth, info_nce, reversal
from neurofm_ml.types import Latents

PARTS = ("behaviour", "activity", "forecast", "side", "domains")


def simplex(n: int) -> Tensor:
    """(n, n) rows of length 1 that are as far apart as n rows can be: where InfoNCE is least."""
    return F.normalize(torch.eye(n) - 1 / n, dim=-1)


def activity(counts: Tensor, scored: Tensor) -> dict[str, Activity]:
    there = scored | (torch.arange(counts.shape[1]) < 3)[:, None]
    return {"s": Activity(counts, scored, counts=True, there=there), "c": Activity(counts / 3, scored, counts=False, there=there)}


def truth_and_best() -> tuple[Truth, SimpleNamespace]:
    """A truth and the prediction that fits it best."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(2, 6, 2, generator=generator)
    target[0, 1, 0] = float("nan")
    counts = torch.poisson(torch.full((2, 6, 3, 1), 3.0), generator=generator) + 1
    later = torch.poisson(torch.full((2, 2, 3, 1), 3.0), generator=generator) + 1
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[1, 4:] = False
    scored = (torch.rand(2, 6, 3, generator=generator) < 0.5) & mask[..., None]
    ahead = torch.tensor([[True, True], [True, False]])[..., None].expand(2, 2, 3)
    latents = torch.randn(2, 6, 4, generator=generator)
    classes = torch.tensor([1, -1])
    moments = torch.zeros(2, 6, 10)
    moments[mask] = simplex(10)
    truth = Truth(
        {"t": target},
        mask,
        activity(counts, scored),
        latents=Target(latents, mask),
        forecast=activity(later, ahead),
        roles={"pose": "behaviour", "eye": "behaviour", "film": "stimulus"},
        contrasted=mask,
        domains={"species": classes},
    )
    best = SimpleNamespace(
        behaviour={"t": target.nan_to_num()},
        activity={"s": counts.log(), "c": counts / 3},
        forecast={"s": later.log(), "c": later / 3},
        latents=latents,
        embedding=moments,
        side=dict.fromkeys(truth.roles, moments),
        domains={"species": 50 * F.one_hot(torch.tensor([1, 0]), 3).float()},
    )
    return truth, best


def moved(best: SimpleNamespace, by: float) -> tuple[SimpleNamespace, list[Tensor]]:
    """The prediction with everything moved at random by about `by`, lengths kept, and the tensors it is made of."""
    generator = torch.Generator().manual_seed(1)
    leaves: list[Tensor] = []

    def move(value: Tensor) -> Tensor:
        leaves.append((value + by * torch.randn(value.shape, generator=generator)).requires_grad_())
        return leaves[-1]

    def turn(value: Tensor) -> Tensor:
        return F.normalize(move(value), dim=-1) * (value != 0).any(-1, keepdim=True)

    parts = {p: {n: (turn if p == "side" else move)(v) for n, v in getattr(best, p).items()} for p in PARTS}
    latents = Latents(move(best.latents), torch.empty(0), torch.empty(0))
    return SimpleNamespace(**parts, latents=latents, embedding=turn(best.embedding)), leaves


@pytest.fixture(params=list(OBJECTIVES))
def objective(request):
    return OBJECTIVES[request.param]


def test_finite_and_has_a_gradient(objective):
    truth, best = truth_and_best()
    guess, leaves = moved(best, 0.3)
    loss = objective(guess, truth)
    loss.backward()
    grads = [leaf.grad for leaf in leaves if leaf.grad is not None]
    assert loss.isfinite()
    assert all(g.isfinite().all() for g in grads)
    assert any(g.abs().sum() > 0 for g in grads)


@pytest.mark.parametrize("by", [0.1, 0.5, 3.0])
def test_least_at_the_truth(objective, by):
    truth, best = truth_and_best()
    if objective is OBJECTIVES["domains"]:
        by = 100.0  # logits have no best value, only a right order
    assert objective(moved(best, by)[0], truth) > objective(moved(best, 0.0)[0], truth)


@pytest.mark.parametrize("name", ["behaviour", "jepa", "domains"])
def test_zero_at_the_truth(name):
    truth, best = truth_and_best()
    assert OBJECTIVES[name](moved(best, 0.0)[0], truth).item() == pytest.approx(0.0, abs=1e-6)


def test_blind_to_padding_and_to_what_was_shown(objective):
    """Everything that no objective may look at becomes absurd; the second horizon of the second window is past its end."""
    truth, best = truth_and_best()
    same, _ = moved(best, 0.0)
    mask, other = truth.mask[..., None], SimpleNamespace(**vars(same))
    other.behaviour = {"t": torch.where(mask, same.behaviour["t"], 99.0)}
    for part in ("activity", "forecast"):
        targets = getattr(truth, part)
        setattr(other, part, {n: torch.where(targets[n].there[..., None], v, 5.0) for n, v in getattr(same, part).items()})
    other.latents = dataclasses.replace(same.latents, values=torch.where(mask, same.latents.values, 99.0))
    other.embedding = torch.where(mask, same.embedding, 1.0)
    other.side = {name: torch.where(mask, value, -1.0) for name, value in same.side.items()}
    other.domains = {"species": same.domains["species"] + torch.tensor([[0.0], [99.0]])}
    assert torch.allclose(objective(other, truth), objective(same, truth))


def test_masked_modelling_is_blind_to_what_was_shown():
    truth, best = truth_and_best()
    shown = {n: torch.where(truth.activity[n].scored[..., None], v, 5.0) for n, v in best.activity.items()}
    guess = SimpleNamespace(activity=shown)
    assert torch.equal(OBJECTIVES["masked"](guess, truth), OBJECTIVES["masked"](best, truth))
    assert OBJECTIVES["reconstruction"](guess, truth) > OBJECTIVES["reconstruction"](best, truth)


def test_zero_when_there_is_nothing_to_score(objective):
    mask = torch.ones(2, 6, dtype=torch.bool)
    nothing = SimpleNamespace(**{part: {} for part in PARTS}, latents=Latents(torch.ones(2, 6, 4), mask, mask), embedding=None)
    assert objective(nothing, Truth({}, mask, {})) == 0


def test_zero_when_all_of_it_is_unknown(objective):
    truth, best = truth_and_best()
    never = torch.zeros_like(truth.mask)
    unknown = dataclasses.replace(
        truth,
        behaviour={"t": torch.full((2, 6, 2), float("nan"))},
        mask=never,
        contrasted=never,
        latents=Target(truth.latents.values, never),
        domains={"species": torch.tensor([-1, -1])},
        **{
            part: {n: dataclasses.replace(a, scored=a.scored & False, there=a.there & False) for n, a in getattr(truth, part).items()}
            for part in ("activity", "forecast")
        },
    )
    guess, leaves = moved(best, 0.3)
    loss = objective(guess, unknown)
    loss.backward()
    assert loss == 0
    assert not any(leaf.grad.any() for leaf in leaves if leaf.grad is not None)


# ---------------------------------------------------------------- single objectives
def test_target_latents_get_no_gradient():
    truth, best = truth_and_best()
    target = truth.latents.values.clone().requires_grad_()
    guess, _ = moved(best, 0.3)
    OBJECTIVES["jepa"](guess, dataclasses.replace(truth, latents=Target(target, truth.mask))).backward()
    assert target.grad is None


def slow_info_nce(a: Tensor, b: Tensor, temperature: float) -> float:
    """One pair of rows after the other."""
    total = 0.0
    for i in range(len(a)):
        for x, others in ((a[i], b), (b[i], a)):
            logits = [float(x @ other) / temperature for other in others]
            total += torch.tensor(logits).logsumexp(0).item() - logits[i]
    return total / (2 * len(a))


def test_info_nce_equals_its_slow_twin():
    generator = torch.Generator().manual_seed(0)
    a, b = (F.normalize(torch.randn(7, 3, generator=generator), dim=-1) for _ in range(2))
    assert float(info_nce(a, b, 0.2)) == pytest.approx(slow_info_nce(a, b, 0.2), rel=1e-5)


def test_info_nce_of_unrelated_rows_is_the_log_of_their_number():
    assert float(info_nce(torch.ones(8, 1), torch.ones(8, 1), 0.1)) == pytest.approx(float(torch.tensor(8.0).log()))


def test_a_learned_temperature_has_a_gradient():
    truth, best = truth_and_best()
    temperature = torch.tensor(0.5, requires_grad=True)
    guess, _ = moved(best, 0.3)
    OBJECTIVES["contrastive"](guess, dataclasses.replace(truth, temperature=temperature)).backward()
    assert temperature.grad > 0  # at the truth a sharper contrast is always better


def embeddings(seed: int, n: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [F.normalize(torch.randn(2, 6, 5, generator=generator), dim=-1) for _ in range(n)]


def test_three_members_make_three_pairs_and_a_missing_one_leaves_one():
    neural, pose, film = embeddings(0, 3)
    mask = torch.ones(2, 6, dtype=torch.bool)
    film[1] = 0  # the second window had no film
    truth = Truth({}, mask, {}, roles={"pose": "behaviour", "film": "stimulus"}, contrasted=mask)
    pairs = [(neural, pose, slice(0, 2)), (neural, film, slice(0, 1)), (pose, film, slice(0, 1))]
    expected = [slow_info_nce(a[rows].flatten(0, 1), b[rows].flatten(0, 1), 0.1) for a, b, rows in pairs]
    guess = SimpleNamespace(embedding=neural, side={"pose": pose, "film": film})
    assert float(OBJECTIVES["trimodal"](guess, truth)) == pytest.approx(sum(expected) / 3, rel=1e-5)
    assert float(OBJECTIVES["contrastive"](guess, truth)) == pytest.approx(sum(expected[:2]) / 2, rel=1e-5)
    alone = dataclasses.replace(truth, roles={"pose": "behaviour"})
    assert float(OBJECTIVES["trimodal"](guess, alone)) == pytest.approx(expected[0], rel=1e-5)


def test_signals_of_one_role_speak_with_one_voice():
    neural, pose, eye = embeddings(1, 3)
    eye[0] = 0  # the first window has a pose alone
    mask = torch.ones(2, 6, dtype=torch.bool)
    truth = Truth({}, mask, {}, roles={"pose": "behaviour", "eye": "behaviour"}, contrasted=mask)
    voice = torch.stack([pose[0], F.normalize(pose[1] + eye[1], dim=-1)])
    found = OBJECTIVES["trimodal"](SimpleNamespace(embedding=neural, side={"pose": pose, "eye": eye}), truth)
    assert float(found) == pytest.approx(slow_info_nce(neural.flatten(0, 1), voice.flatten(0, 1), 0.1), rel=1e-5)


def test_the_reversed_gradient_grows_from_nothing_to_all_of_it():
    assert reversal(0.0) == 0.0
    assert reversal(0.1) == pytest.approx(0.4621, abs=1e-4)  # tanh(1/2)
    assert reversal(1.0) == pytest.approx(1.0, abs=1e-4)
