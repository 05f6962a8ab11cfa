"""Weightings: in closed form, against brute force, trained and resumed with the model, and gone from what is published."""

import pytest
import torch
from torch import Tensor, nn
from toy_training import CFG, ToyBatches, toy_model

from neurofm_ml.config import patch
from neurofm_ml.training.loop import fit
from neurofm_ml.training.weighting import LIMIT, WEIGHINGS, LogVariance, balanced, weigh_by_gradient, weigh_by_uncertainty


def two_scales() -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """Two objectives on six latents, one measured a million times larger than the other."""
    latents = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    hidden = latents * 1.0
    parts = {"small": 1e-3 * (hidden - 1).square().mean(), "large": 1e3 * (hidden + 1).abs().mean(), "idle": torch.tensor(7.0)}
    return parts, latents, hidden


GIVEN = {"small": 1.0, "large": 0.5, "idle": 2.0}


def test_fixed_weights_are_the_given_ones():
    parts, _, hidden = two_scales()
    total, weights = WEIGHINGS["fixed"](nn.Module(), parts, GIVEN, [hidden])
    assert total.item() == pytest.approx(sum(GIVEN[n] * p.item() for n, p in parts.items()), rel=1e-6)
    assert weights == GIVEN


def test_objectives_of_different_scale_pull_as_their_weights_say():
    parts, latents, hidden = two_scales()
    total, weights = weigh_by_gradient(nn.Module(), parts, GIVEN, [hidden])
    raw = {n: torch.autograd.grad(parts[n], latents, retain_graph=True)[0].norm() for n in ("small", "large")}
    pulls = {n: float(weights[n] * raw[n]) for n in raw}
    mean = float((raw["small"] + 0.5 * raw["large"]) / 1.5)
    assert pulls == pytest.approx({"small": mean, "large": 0.5 * mean}, rel=1e-5)
    assert float(weights["idle"]) == 2.0
    gradient = torch.autograd.grad(total, latents, retain_graph=True)[0]
    expected = sum(weights[n] * torch.autograd.grad(parts[n], latents, retain_graph=True)[0] for n in raw)
    assert torch.allclose(gradient, expected)
    assert not any(w.requires_grad for w in weights.values())


def test_gradients_through_several_latents_count_together():
    a, b = (torch.full((4,), value, requires_grad=True) for value in (1.0, 2.0))
    parts = {"both": 3 * a.sum() + 4 * b.sum(), "one": 10 * a.sum()}
    _, weights = weigh_by_gradient(nn.Module(), parts, {"both": 1.0, "one": 1.0}, [a, b])
    assert float(weights["both"]) == pytest.approx(15 / 10)  # norms 10 and 20
    assert float(weights["one"]) == pytest.approx(15 / 20)


def test_learned_variances_settle_where_each_weight_is_one_over_its_part():
    """The minimum of exp(-s) L + s over s is log L: parts of any scale end up counting alike."""
    model = nn.Module()
    parts = {"small": torch.tensor(0.2), "large": torch.tensor(5.0)}
    given = {"small": 1.0, "large": 0.3}
    with balanced(model, "uncertainty", list(parts)):
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        for _ in range(300):
            optimizer.zero_grad()
            weigh_by_uncertainty(model, parts, given, [])[0].backward()
            optimizer.step()
        total, weights = weigh_by_uncertainty(model, parts, given, [])
    assert {n: float(w) for n, w in weights.items()} == pytest.approx({"small": 1 / 0.2, "large": 0.3 / 5.0}, rel=1e-3)
    assert total.item() == pytest.approx(sum(given[n] * (1 + p.log().item()) for n, p in parts.items()), rel=1e-4)


def test_a_negative_part_cannot_grow_without_end():
    logs = LogVariance(["counts"])
    optimizer = torch.optim.SGD(logs.parameters(), lr=1.0)
    for _ in range(200):
        optimizer.zero_grad()
        (torch.exp(-logs("counts")) * -2.0 + logs("counts")).backward()
        optimizer.step()
    assert -LIMIT <= logs("counts").item() < -0.9 * LIMIT


# ---------------------------------------------------------------- in a run
def two_parts(model, batch, generator, progress):
    """The toy's error in two units, weighed by what the run learns."""
    error = (model(batch.x, batch.k) - batch.y).square().mean()
    total, weights = weigh_by_uncertainty(model, {"a": 0.01 * error, "b": 100 * error}, {"a": 1.0, "b": 1.0}, [])
    return total, {f"weight/{name}": weight for name, weight in weights.items()}


def balanced_run(out, cfg=CFG, loss=two_parts):
    model = toy_model()
    with balanced(model, "uncertainty", ["a", "b"]):
        history = fit(model, ToyBatches(4), loss, cfg, out, seed=1)
        learned = {name: p.clone() for name, p in model.log_variance.named_parameters()}
    return model, history, learned


class KilledError(Exception):
    """Stands for the end of a process."""


def test_what_a_weighting_learns_is_trained_saved_and_resumed_and_not_published(tmp_path):
    cfg = patch(CFG, {"accumulate": 1})
    whole, history, learned = balanced_run(tmp_path / "whole", cfg)
    assert history.last("weight/a") > 1 > history.last("weight/b")
    assert whole.state_dict().keys() == toy_model().state_dict().keys()

    def deadly(model, batch, generator, progress):
        if progress >= 17 / 40:
            raise KilledError
        return two_parts(model, batch, generator, progress)

    with pytest.raises(KilledError):
        balanced_run(tmp_path / "halves", cfg, deadly)
    resumed, again, relearned = balanced_run(tmp_path / "halves", cfg)
    assert again.resumed_from == 14
    assert all(torch.equal(relearned[name], p) for name, p in learned.items())
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    assert (tmp_path / "halves/metrics.csv").read_text() == (tmp_path / "whole/metrics.csv").read_text()


@pytest.mark.parametrize("weighting", ["fixed", "gradient_norm"])
def test_other_weightings_add_nothing_to_the_model(weighting):
    model = toy_model()
    with balanced(model, weighting, ["a"]):
        assert model.state_dict().keys() == toy_model().state_dict().keys()


def test_the_model_is_as_before_when_training_fails():
    model = toy_model()
    with pytest.raises(KilledError), balanced(model, "uncertainty", ["a"]):
        raise KilledError
    assert not hasattr(model, "log_variance")
