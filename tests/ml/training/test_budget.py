"""Estimates against what torch counts: parameters, FLOPs of a step, bytes kept for the backward pass."""

import dataclasses
import sys

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode

from neurofm_ml import presets
from neurofm_ml.config import patch
from neurofm_ml.models import NeuroFMx
from neurofm_ml.presets import SIZES
from neurofm_ml.training.budget import PEAKS, estimate, forward_flops, hours, main, mfu, parameters, peak_of

TINY = presets.pretrain("tiny")
SHAPES = [
    {},
    {"d_model": 128, "n_layers": 3, "n_heads": 8, "d_state": 32, "d_conv": 4, "expand": 2, "prenorm": True},
    {"bidirectional": False, "n_layers": 1},
    {"backbone": "gru"},
]


def forward(cfg, batch, vocabulary):
    torch.manual_seed(0)
    model = NeuroFMx(patch(cfg, {"dropout": 0.0}), vocabulary)
    predicted = model(batch, {}, {"activity"})
    return model, torch.stack([v.square().mean() for v in (*predicted.behaviour.values(), *predicted.activity.values())]).sum()


@pytest.mark.slow
@pytest.mark.parametrize("changes", SHAPES)
@pytest.mark.parametrize("seconds", [6.4, 12.0])
def test_flops_are_those_that_torch_counts(make_batch, vocabulary, changes, seconds):
    cfg, batch = patch(TINY.model, changes), make_batch("spikes", batch=3, seconds=seconds)
    bins = batch.times.shape[1]
    if cfg.backbone == "gru":  # torch counts no recurrent layers
        assert forward_flops(cfg, bins, 5) > 2 * bins * sum(
            p.numel() for p in torch.nn.GRU(cfg.d_model, 48, bidirectional=True).parameters()
        )
        return
    with FlopCounterMode(display=False) as ahead:
        _, loss = forward(cfg, batch, vocabulary)
    with FlopCounterMode(display=False) as back:
        loss.backward()
    assert ahead.get_total_flops() == pytest.approx(3 * forward_flops(cfg, bins, 5), rel=1e-6)
    # torch counts the backward pass of a convolution by channels as if every channel read all others.
    matrices = [sum(n for op, n in c.get_flop_counts()["Global"].items() if "conv" not in str(op)) for c in (ahead, back)]
    assert matrices[1] / matrices[0] == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize("changes", SHAPES[:3])
def test_activations_are_about_those_that_are_kept(make_batch, vocabulary, changes):
    cfg, batch = patch(TINY, {"model": {"dropout": 0.0, **changes}, "train": {"batch_size": 8}}), make_batch("spikes", batch=8)
    kept = {}
    with saved_tensors_hooks(lambda t: kept.setdefault(t.untyped_storage().data_ptr(), t) is None or t, lambda t: t):
        model, _ = forward(cfg.model, batch, vocabulary)
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    found = sum(t.untyped_storage().nbytes() for pointer, t in kept.items() if pointer not in weights)
    assert estimate(cfg, bins=60)["activations_gb"] * 1e9 == pytest.approx(found, rel=0.35)


def test_parameters_are_counted_without_memory(vocabulary):
    spikes = dataclasses.replace(vocabulary, channels={"spikes": vocabulary.channels["spikes"]}, modalities=())
    assert parameters(TINY.model, 5) == sum(p.numel() for p in NeuroFMx(TINY.model, spikes).parameters())
    assert 400e6 < parameters(presets.neurofmx("large")) < 600e6


@pytest.mark.parametrize("size", SIZES)
def test_six_flops_per_parameter_and_token(size):
    """Kaplan et al. 2020: 6 N D, more where the scan counts for much."""
    cfg = patch(presets.pretrain(size), {"train": {"strategy": "single"}})
    found = estimate(cfg, devices=2, bins=512)
    assert 0.75 < found["flops"] / (6 * found["parameters"] * found["tokens"]) < 2.5
    assert found["tokens_per_step"] == 2 * cfg.train.batch_size * 512
    assert found["weights_gb"] == found["parameters"] * 4 / 1e9


def test_strategies_share_and_compute_again():
    cfg = patch(presets.pretrain("small"), {"train": {"strategy": "ddp"}})
    shared = patch(cfg, {"train": {"strategy": "fsdp", "activation_checkpointing": True}})
    plain, found = estimate(cfg, devices=4), estimate(shared, devices=4)
    assert found["optimizer_gb"] == plain["optimizer_gb"] / 4
    assert found["activations_gb"] < plain["activations_gb"] / 4
    assert found["flops"] == plain["flops"] * 4 / 3


def test_hours_and_utilisation_are_inverse():
    peak = peak_of("NVIDIA H100 80GB HBM3")
    assert peak == PEAKS["h100"]
    assert peak_of("GeForce") is None
    took = hours(1e20, 8, peak, 0.4) * 3600
    assert mfu(1e20 / 8, took, peak) == pytest.approx(0.4)


@pytest.mark.parametrize("name", presets.BUDGETS)
@pytest.mark.parametrize("size", SIZES)
def test_every_size_can_be_brought_to_every_budget(name, size):
    cfg = patch(presets.pretrain(size), presets.budget(name))
    assert cfg.model == presets.neurofmx(size)
    assert cfg.train.lr == presets.pretrain(size).train.lr


def test_an_unknown_budget_is_refused():
    with pytest.raises(ValueError, match="budget is 'palace'; allowed: laptop, workstation, cluster"):
        presets.budget("palace")


def test_the_command_prints_hours_and_cost(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["budget", "--size", "medium", "--gpus", "8", "--usd-per-hour", "2", "--mfu", "0.4"])
    main()
    printed = {line.split()[0]: line.split()[1] for line in capsys.readouterr().out.splitlines()}
    found = estimate(presets.pretrain("medium"), devices=8)
    expected = hours(found["flops"], 8, PEAKS["h100"], 0.4)
    assert float(printed["hours"].replace(",", "")) == pytest.approx(expected, abs=0.01)
    assert float(printed["cost"].replace(",", "")) == pytest.approx(expected * 16, abs=0.01)
