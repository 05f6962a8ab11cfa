"""Adaptation: each method changes what it promises and no other bit, merges into plain weights, and lives on few labels."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from neurofm_ml import presets
from neurofm_ml.config import patch
from neurofm_ml.data.batches import Vocabulary, build_vocabulary
from neurofm_ml.data.scaler import Scaler
from neurofm_ml.data.windows import load_block
from neurofm_ml.models import NeuroFMx
from neurofm_ml.presets import AdaptConfig, TrainConfig
from neurofm_ml.training.adapt import METHODS, fine_tune
from neurofm_ml.training.decoders import adapted_to, fit_decoder, predict_block
from neurofm_ml.training.few_labels import scaled_by_labels, with_share
from neurofm_ml.training.optimizer import adamw
from neurofm_ml.training.problems import Problem
from neurofm_ml.training.trainable import fitting, own_rows

CFG = patch(presets.neurofmx("tiny"), {"d_model": 16, "n_heads": 2, "d_state": 4})
HEADS = {f"behaviour.simulation/{task}.{part}" for task in ("behaviour", "first") for part in ("weight", "bias")}
TABLES = {"tokenizers.spikes.channels.table.weight", "session.weight"}


def config(method: str, **changes: object) -> AdaptConfig:
    train = TrainConfig(steps=3, batch_size=4, ema=0.5, weight_decay=0.1, checkpoint_every=3)
    return AdaptConfig(seed=3, size="tiny", train=train, method=method, lora_rank=2, **changes)


@pytest.fixture
def problem(problems) -> Problem:
    """The session of one recording: the two recordings of the other stay out of it."""
    return next(p for p in problems if p.inputs == ("spikes",) and p.session == "two")


@pytest.fixture
def base(shards) -> NeuroFMx:
    """A model that knows both sessions, with every part of it in use."""
    torch.manual_seed(0)
    model = NeuroFMx(CFG, build_vocabulary([shards]))
    nn.init.normal_(model.session.weight[1:])
    return model.eval()


def promised(model: NeuroFMx, problem: Problem, method: str) -> dict[str, slice | list[int]]:
    """Parameter -> its rows that a method may change."""
    heads = dict.fromkeys(HEADS, slice(None))
    rows = {name: rows for name, (_, rows) in zip(sorted(TABLES, reverse=True), own_rows(model, problem), strict=True)}
    linear = [f"{n}.weight" for n, m in model.named_modules() if isinstance(m, nn.Linear) and n.startswith(("fusion", "backbone"))]
    return {"probe": heads, "new_units": {**heads, **rows}, "lora": {**heads, **rows, **dict.fromkeys(linear, slice(None))}}[method]


@pytest.mark.parametrize("method", ["probe", "new_units", "lora"])
def test_exactly_what_was_promised_changes(tmp_path, base, problem, scaler, method):
    model, cfg = copy.deepcopy(base), config(method)
    with fitting(model, cfg, problem):
        fit_decoder(model, problem, scaler, cfg.train, cfg.augment, tmp_path, seed=3)
    before, after, allowed = base.state_dict(), model.state_dict(), promised(base, problem, method)
    assert list(after) == list(before)
    for name, was in before.items():
        changed = torch.zeros(was.shape, dtype=torch.bool)
        if name in allowed:
            changed[allowed[name]] = True
            assert not torch.equal(after[name][changed], was[changed]), name
        assert torch.equal(after[name][~changed], was[~changed]), name
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_the_optimizer_holds_no_other_parameter(base, problem, method):
    model = copy.deepcopy(base)
    own = sum(len(rows) * CFG.d_model for _, rows in own_rows(model, problem))
    heads = 3 * (CFG.d_model + 1)
    low_rank = sum(
        2 * (m.in_features + m.out_features) for part in (model.fusion, model.backbone) for m in part.modules() if isinstance(m, nn.Linear)
    )
    expected = {"full": sum(p.numel() for p in base.parameters()), "probe": heads, "new_units": heads + own, "lora": heads + own + low_rank}
    with fitting(model, config(method), problem):
        groups = adamw(model, config(method).train).param_groups
        assert sum(p.numel() for group in groups for p in group["params"]) == expected[method]
        if method == "new_units":  # rows are embeddings: what a session has little data for is not pulled to zero
            assert sum(p.numel() for p in groups[1]["params"]) == own + 3


def test_merged_low_rank_updates_are_the_same_model(tmp_path, base, problem, scaler):
    model, cfg = copy.deepcopy(base), config("lora")
    with fitting(model, cfg, problem):
        assert np.array_equal(*(predict_block(m, problem, scaler, "test")["behaviour"].guess for m in (model, base)))
        fit_decoder(model, problem, scaler, cfg.train, cfg.augment, tmp_path, seed=3)
        apart = predict_block(model, problem, scaler, "test")
    merged = predict_block(model, problem, scaler, "test")
    assert not hasattr(model, "peft_config")
    assert {type(m) for m in model.modules()} == {type(m) for m in base.modules()}
    for task in apart:
        assert np.allclose(merged[task].guess, apart[task].guess, atol=1e-4)


def test_a_seed_fixes_the_low_rank_start_and_leaves_the_global_generator(base, problem):
    state, found = torch.get_rng_state(), []
    for seed in (1, 1, 2):
        model = copy.deepcopy(base)
        with fitting(model, dataclasses.replace(config("lora"), seed=seed), problem):
            found.append(next(p.detach().clone() for n, p in model.named_parameters() if "lora_A" in n))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert torch.equal(torch.get_rng_state(), state)


def test_a_session_never_seen_is_fitted_by_its_rows_alone(tmp_path, problem, scaler):
    torch.manual_seed(0)
    stranger = NeuroFMx(CFG, Vocabulary({"calcium": ("toy/a/calcium/0",)}, ("toy/a",), {})).eval()
    begun = adapted_to(stranger, [problem], scaler, seed=3).state_dict()
    cfg = config("new_units")
    model, _ = fine_tune(cfg, stranger, problem, scaler, tmp_path)
    shared = [n for n in begun if n not in HEADS | TABLES]
    assert all(torch.equal(model.state_dict()[n], begun[n]) for n in shared)


# ---------------------------------------------------------------- few labels
def test_a_share_of_the_labels_is_the_end_of_the_training_block(problem):
    start, end = load_block(problem.shards, problem.recording, "train").bounds
    few = with_share(problem, 0.25)
    assert few.labelled == pytest.approx((end - 0.25 * (end - start), end))
    assert few.windows("test") == problem.windows("test")


def test_targets_are_scaled_by_the_labels_there_are(problem, scaler):
    few = with_share(problem, 0.5)
    mean, std = scaled_by_labels(scaler, few)(problem.dataset, problem.session, "behaviour")
    target = load_block(problem.shards, problem.recording, "train").signals["behaviour"]
    centres = target.times + 0.5 / target.sfreq
    known = target.values[(centres >= few.labelled[0]) & (centres < few.labelled[1])]
    assert np.allclose(mean, np.nanmean(known, 0), rtol=1e-5)
    assert np.allclose(std, np.nanstd(known, 0), rtol=1e-5)
    spikes = (problem.dataset, problem.session, "spikes")
    assert scaled_by_labels(scaler, few)(*spikes) is scaler(*spikes)


@pytest.mark.parametrize("seconds", [0.05, 0.15])
def test_labels_that_stand_still_are_refused(problem, scaler: Scaler, seconds):
    _, end = load_block(problem.shards, problem.recording, "train").bounds
    with pytest.raises(ValueError, match=r"hold no change of 'behaviour'; raise AdaptConfig\.label_share"):
        scaled_by_labels(scaler, dataclasses.replace(problem, labelled=(end - seconds, end)))


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"label_share": 1.5}, r"AdaptConfig\.label_share is 1\.5; it must lie in \(0, 1\]"),
        ({"label_share": 0.0}, r"AdaptConfig\.label_share is 0\.0; it must be positive"),
        ({"lora_rank": 0}, r"AdaptConfig\.lora_rank is 0"),
        ({"train": {"strategy": "ddp"}}, r'AdaptConfig\.train\.strategy is \'ddp\'; it must be "single": processes share the decoders'),
    ],
)
def test_wrong_settings_are_refused(changes, match):
    with pytest.raises(ValueError, match=match):
        patch(presets.adapt("tiny"), changes)
