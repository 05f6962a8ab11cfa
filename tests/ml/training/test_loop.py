"""The loop against a plain one, against itself killed and resumed, and against itself on two processes."""

import dataclasses
import math
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toy_training import (
    CFG,
    ToyBatches,
    noisy_loss,
    plain_loss,
    summed,
    toy_model,
    toy_run,
)

from neurofm_ml.config import patch
from neurofm_ml.training.checkpoints import load_checkpoint, load_weights
from neurofm_ml.training.curves import MetricsLog, read_curves
from neurofm_ml.training.loop import fit
from neurofm_ml.training.optimizer import adamw
from neurofm_ml.training.schedule import warmup_cosine
from neurofm_ml.types import Preempted

PLAIN = patch(CFG, {"steps": 12, "accumulate": 1, "ema": 0.0, "clip_norm": 0.5, "weight_decay": 0.1, "warmup": 0.25})


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Toys gain nothing from threads, and bits are compared between processes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# ---------------------------------------------------------------- what an update is
def test_equals_a_plain_loop(tmp_path: Path) -> None:
    fitted, plain = toy_model(dropout=0), toy_model(dropout=0)
    fit(fitted, ToyBatches(4), plain_loss, PLAIN, tmp_path, seed=0)
    decayed = {"gru.weight_ih_l0", "gru.weight_hh_l0", "readout.weight"}
    optimizer = torch.optim.AdamW(
        [{"params": [p], "weight_decay": 0.1 if name in decayed else 0.0} for name, p in plain.named_parameters()]
    )
    for step, batch in zip(range(12), ToyBatches(4), strict=False):
        rate = (step + 1) / 3 if step < 3 else 0.5 + 0.5 * math.cos(math.pi * (step - 3) / 9)
        for group in optimizer.param_groups:
            group["lr"] = 3e-3 * rate
        optimizer.zero_grad()
        plain_loss(plain, batch, torch.Generator(), 0.0)[0].backward()
        nn.utils.clip_grad_norm_(plain.parameters(), 0.5)
        optimizer.step()
    for name, weight in plain.state_dict().items():
        torch.testing.assert_close(fitted.state_dict()[name], weight, rtol=1e-5, atol=1e-6)


def test_schedule_rises_to_one_and_falls_towards_zero() -> None:
    rates = [warmup_cosine(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx(np.arange(1, 11) / 10)
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(math.sin(math.pi / 180) ** 2)
    assert warmup_cosine(0, 100, 0.0) == 1.0


def test_norms_biases_embeddings_are_not_decayed_and_frozen_weights_are_left_out() -> None:
    model = toy_model()
    model.readout.requires_grad_(False)
    names = {p: name for name, p in model.named_parameters()}
    decayed, others = ({names[p] for p in group["params"]} for group in adamw(model, CFG).param_groups)
    assert decayed == {"gru.weight_ih_l0", "gru.weight_hh_l0"}
    assert others == {"embedding.weight", "gru.bias_ih_l0", "gru.bias_hh_l0", "norm.weight", "norm.bias"}


def test_exported_weights_are_the_moving_average(tmp_path: Path) -> None:
    seen: list[list[Tensor]] = []

    def watching(model: nn.Module, *args: Any) -> tuple[Tensor, dict[str, float]]:
        seen.append([p.detach().cpu().double().clone() for p in model.parameters()])
        return plain_loss(model, *args)

    model = toy_model()
    fit(model, ToyBatches(4), watching, patch(PLAIN, {"ema": 0.9}), tmp_path, seed=0)
    final = load_checkpoint(tmp_path / "checkpoints/step-000012").weights
    seen.append([final[name].double() for name, _ in model.named_parameters()])
    average = seen[0]
    for weights in seen[1:]:
        average = [0.9 * old + 0.1 * new for old, new in zip(average, weights, strict=True)]
    assert any(not torch.equal(a, w) for a, w in zip(average, seen[-1], strict=True))
    for exported, expected in zip(model.parameters(), average, strict=True):
        torch.testing.assert_close(exported.double(), expected, rtol=1e-5, atol=1e-6)


def test_accumulation_equals_a_bigger_batch(tmp_path: Path) -> None:
    parts, whole = toy_model(dropout=0), toy_model(dropout=0)
    one_history = fit(parts, ToyBatches(4), plain_loss, patch(PLAIN, {"accumulate": 3}), tmp_path / "parts", seed=0)
    other_history = fit(whole, ToyBatches(12), plain_loss, PLAIN, tmp_path / "whole", seed=0)
    for name in ("loss", "grad_norm"):
        np.testing.assert_allclose(one_history.curves[name][1], other_history.curves[name][1], rtol=1e-5)
    for one, other in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_the_callers_random_state_is_left_alone(tmp_path: Path) -> None:
    model = toy_model()
    state = torch.get_rng_state()
    fit(model, ToyBatches(4), noisy_loss, PLAIN, tmp_path, seed=1)
    assert torch.equal(state, torch.get_rng_state())


def test_each_micro_batch_has_randomness_of_its_own(tmp_path: Path) -> None:
    def draws(seed: int, out: Path) -> list[tuple[float, float]]:
        drawn: list[tuple[float, float]] = []

        def drawing(model: nn.Module, batch: Any, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
            drawn.append((torch.rand(1).item(), torch.rand(1, generator=generator, device=generator.device).item()))
            return plain_loss(model, batch, generator, progress)

        fit(toy_model(), ToyBatches(4), drawing, patch(PLAIN, {"accumulate": 2}), out, seed=seed)
        return drawn

    first, again, other = draws(0, tmp_path / "first"), draws(0, tmp_path / "again"), draws(1, tmp_path / "other")
    assert first == again
    assert len({*sum(first, ()), *sum(other, ())}) == 2 * 2 * 2 * 12


@pytest.mark.parametrize("changes", [{"precision": "bf16-mixed"}, pytest.param({"compile": True}, marks=pytest.mark.slow)])
def test_switches_train_as_well_as_the_default(changes: dict[str, Any], tmp_path: Path) -> None:
    usual, other = toy_model(), toy_model()
    cfg = patch(CFG, {"steps": 100, "lr": 0.02})
    expected = fit(usual, ToyBatches(4), noisy_loss, cfg, tmp_path / "usual", seed=0).last("loss")
    found = fit(other, ToyBatches(4), noisy_loss, patch(cfg, changes), tmp_path / "other", seed=0)
    assert found.last("loss") == pytest.approx(expected, rel=0.1)
    assert all(check.passed for check in found.checks)
    assert usual.state_dict().keys() == other.state_dict().keys()
    assert all(p.dtype == torch.float32 for p in other.parameters())


# ---------------------------------------------------------------- what is written
def test_history_curves_and_files(tmp_path: Path) -> None:
    history = toy_run(tmp_path)
    steps, losses = history.curves["loss"]
    assert set(steps) == {*range(3, 41, 3), *range(7, 41, 7), 40}
    assert list(history.curves["validation/weights"][0]) == [7, 14, 21, 28, 35, 40]
    assert history.last("validation/weights") == pytest.approx(sum(p.sum().item() for p in load_weights(tmp_path)[0].values()), rel=1e-5)
    assert history.metrics["loss"] == losses[-1]
    assert history.samples_per_second == pytest.approx(history.steps_per_second * 8)
    assert [check.name for check in history.checks] == ["loss_is_finite", "loss_fell"]
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(p.name for p in (tmp_path / "checkpoints").iterdir()) == ["step-000035", "step-000040"]


def test_logged_values_are_means_over_the_steps_since_the_last_row(tmp_path: Path) -> None:
    every = fit(toy_model(), ToyBatches(4), noisy_loss, patch(CFG, {"log_every": 1}), tmp_path / "every", seed=0)
    third = fit(toy_model(), ToyBatches(4), noisy_loss, CFG, tmp_path / "third", seed=0)
    for name in ("loss", "error", "grad_norm", "lr"):
        values = dict(zip(*third.curves[name], strict=True))
        assert values[3] == pytest.approx(every.curves[name][1][:3].mean(), rel=1e-5)
        assert values[7] == pytest.approx(every.curves[name][1][6])


def test_metrics_past_the_resumed_step_and_torn_rows_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("step,name,value\n5,loss,1.5\n10,loss,1.25\n15,loss,1.0\n2")
    with MetricsLog(path, 10, writing=True) as log:
        log.write(15, {"loss": 0.5, "a,b": 2.0})
    curves = read_curves(path)
    assert {name: [list(part) for part in curve] for name, curve in curves.items()} == {
        "loss": [[5, 10, 15], [1.5, 1.25, 0.5]],
        "a,b": [[15], [2.0]],
    }


# ---------------------------------------------------------------- interrupted and resumed
@pytest.mark.parametrize("every", [10, 4], ids=["logged alone", "a checkpoint is due"])
def test_asked_to_stop_it_saves_at_a_logged_step_and_goes_on_from_there(every: int, tmp_path: Path) -> None:
    former, cfg = signal.getsignal(signal.SIGTERM), dataclasses.replace(CFG, checkpoint_every=every)
    whole, halves = toy_model(), toy_model()
    fit(whole, ToyBatches(4), noisy_loss, cfg, tmp_path / "whole", seed=3)
    first, second = ToyBatches(4), ToyBatches(4)

    def stopped(model: nn.Module, batch: Any, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        if progress == 10 / 40:
            os.kill(os.getpid(), signal.SIGTERM)
        return noisy_loss(model, batch, generator, progress)

    with pytest.raises(Preempted, match="step 12 of 40"):
        fit(toy_model(), first, stopped, cfg, tmp_path / "halves", seed=3)
    assert signal.getsignal(signal.SIGTERM) is former
    history = fit(halves, second, noisy_loss, cfg, tmp_path / "halves", seed=3)
    assert history.resumed_from == 12
    assert first.served + second.served == list(range(40 * 2 * 4))
    assert (tmp_path / "whole/metrics.csv").read_bytes() == (tmp_path / "halves/metrics.csv").read_bytes()
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), halves.parameters(), strict=True))


def test_a_finished_run_is_read_not_repeated(tmp_path: Path) -> None:
    first = toy_run(tmp_path)
    model, batches = toy_model(), ToyBatches(4)
    again = fit(model, batches, noisy_loss, CFG, tmp_path, seed=3, validate=summed)
    assert batches.served == []
    assert dataclasses.replace(again, curves={}, resumed_from=0) == dataclasses.replace(first, curves={})
    assert all(torch.equal(weight, load_weights(tmp_path)[0][name]) for name, weight in model.state_dict().items())


@pytest.mark.parametrize(
    ("changes", "seed", "message"),
    [({"lr": 0.1}, 3, "lr was 0.003, is 0.1"), ({}, 4, "seed was 3, is 4"), ({"steps": 80}, 3, "steps was 40, is 80")],
)
def test_another_runs_checkpoint_is_refused(changes: dict[str, Any], seed: int, message: str, tmp_path: Path) -> None:
    fit(toy_model(), ToyBatches(4), noisy_loss, CFG, tmp_path, seed=3)
    with pytest.raises(ValueError, match=f"another run .{message}"):
        fit(toy_model(), ToyBatches(4), noisy_loss, patch(CFG, changes), tmp_path, seed=seed)


# ---------------------------------------------------------------- what goes wrong
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda error: error * math.nan, "step 31 of 40: loss nan"),
        (lambda error: error / 0, "step 31 of 40: loss inf"),
        (lambda error: error + (error - error.detach()).abs().sqrt(), "step 31 of 40: loss [0-9.]+, gradient norm nan"),
    ],
)
def test_divergence_stops_with_the_step_and_keeps_the_last_good_checkpoint(spoil: Any, message: str, tmp_path: Path) -> None:
    def loss(model: nn.Module, batch: Any, generator: torch.Generator, progress: float) -> tuple[Tensor, dict[str, float]]:
        error, parts = noisy_loss(model, batch, generator, progress)
        return spoil(error) if progress == 30 / 40 else error, parts

    with pytest.raises(ValueError, match=message) as caught:
        fit(toy_model(), ToyBatches(4), loss, CFG, tmp_path, seed=3)
    assert str(tmp_path / "checkpoints") in str(caught.value)
    kept = load_checkpoint(sorted((tmp_path / "checkpoints").iterdir())[-1])
    assert kept.step == 28
    assert all(bool(weight.isfinite().all()) for weight in kept.weights.values())
