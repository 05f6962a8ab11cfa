"""Decoders: models that grow keep what they know, blocks are stitched as a slow loop would, what is saved comes back."""

import dataclasses
from collections import defaultdict

import numpy as np
import pandas as pd
import pytest
import torch

from neurofm_ml import presets
from neurofm_ml.config import patch
from neurofm_ml.data.batches import Collate, Vocabulary, build_vocabulary
from neurofm_ml.data.loader import Loader
from neurofm_ml.data.windows import load_block
from neurofm_ml.models import NeuroFMx
from neurofm_ml.presets import AdaptConfig, AugmentConfig, NeuroFMxConfig
from neurofm_ml.training.adapt import adapt, predictions
from neurofm_ml.training.decoders import (
    Decoder,
    adapted_to,
    block_latents,
    describe,
    extend,
    fit_decoder,
    from_scratch,
    load_decoders,
    predict_block,
    save_decoder,
)
from neurofm_ml.training.problems import Problem
from neurofm_ml.training.saved import load_model, save_model
from neurofm_ml.training.trainable import own_rows
from neurofm_ml.training.tuning import embed_by_tuning

CFG = patch(presets.neurofmx("tiny"), {"d_model": 16, "n_heads": 2, "d_state": 4})


def model_of(vocabulary: Vocabulary, seed: int = 0, cfg: NeuroFMxConfig = CFG) -> NeuroFMx:
    torch.manual_seed(seed)
    return NeuroFMx(cfg, vocabulary).eval()


@pytest.fixture
def problem(problems) -> Problem:
    return next(p for p in problems if p.inputs == ("spikes",))


# ---------------------------------------------------------------- extend
MORE = Vocabulary({"spikes": ("toy/b/spikes/7", "toy/b/spikes/8"), "calcium": ("toy/b/calcium/0",)}, ("toy/b",), {"toy/side": 3})


def test_extending_keeps_what_is_known_bit_for_bit(vocabulary, make_batch):
    model = model_of(vocabulary)
    torch.nn.init.normal_(model.session.weight)
    wider = extend(model, MORE, seed=1).eval()
    after = wider.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(after[name][tuple(slice(n) for n in value.shape)], value), name
    batch = make_batch("spikes", "calcium")
    assert torch.equal(wider(batch).latents.values, model(batch).latents.values)
    assert torch.equal(wider(batch).behaviour["toy/velocity"], model(batch).behaviour["toy/velocity"])


def test_extending_adds_fresh_rows_and_heads(vocabulary):
    model = model_of(vocabulary)
    wider, other = extend(model, MORE, seed=1), extend(model, MORE, seed=2)
    rows = wider.vocabulary.channel_rows("spikes", "toy/b/spikes", ["7", "8"])
    assert rows == [6, 7]
    fresh, elsewhere = (m.tokenizer("spikes").channels.table.weight[rows] for m in (wider, other))
    assert (fresh.norm(dim=1) > 0.1).all()
    assert not torch.equal(fresh, elsewhere)
    assert wider.session.weight.shape[0] == 3
    assert wider.behaviour["toy/side"].weight.shape == (3, 16)
    assert wider.n_parameters() == model.n_parameters()
    assert model.vocabulary == vocabulary


def test_extending_by_what_is_known_changes_nothing(vocabulary):
    model = model_of(vocabulary)
    same = extend(model, vocabulary, seed=5).state_dict()
    assert all(torch.equal(same[name], value) for name, value in model.state_dict().items())


def test_a_session_never_seen_starts_from_its_tuning_maps(shards, scaler, problem):
    base = model_of(Vocabulary({"calcium": ("toy/a/calcium/0",)}, ("toy/a",), {}))
    adapted = adapted_to(base, [problem], scaler, seed=3)
    expected = extend(base, build_vocabulary([shards]), seed=3)
    assert not torch.equal(adapted.tokenizer("spikes").channels.table.weight, expected.tokenizer("spikes").channels.table.weight)
    embed_by_tuning(expected, [problem], scaler)
    assert torch.equal(adapted.tokenizer("spikes").channels.table.weight, expected.tokenizer("spikes").channels.table.weight)
    known = model_of(build_vocabulary([shards]))
    again = adapted_to(known, [problem], scaler, seed=3)
    assert torch.equal(again.tokenizer("spikes").channels.table.weight, known.tokenizer("spikes").channels.table.weight)


def test_every_session_never_seen_starts_from_its_tuning_maps(shards, scaler, problems):
    """Those of one dataset become known together, with the first of them."""
    both = [next(p for p in problems if p.inputs == ("spikes",) and p.session == session) for session in ("one", "two")]
    base = model_of(Vocabulary({"calcium": ("toy/a/calcium/0",)}, ("toy/a",), {}))
    found, alone = (adapted_to(base, chosen, scaler, seed=3) for chosen in (both, both[1:]))
    for problem, other in zip(both, (adapted_to(base, both[:1], scaler, seed=3), alone), strict=True):
        (rows,) = (own for table, own in own_rows(found, problem) if table is found.tokenizer("spikes").channels.table)
        assert torch.equal(*(model.tokenizer("spikes").channels.table.weight[rows] for model in (found, other)))


# ---------------------------------------------------------------- whole blocks
def stitched(model: NeuroFMx, problem: Problem, scaler, split: str, pick) -> np.ndarray:
    """Window by window, bin by bin: a weighted mean of all that was said of a bin, keyed by its time."""
    collate = Collate([problem.shards], model.vocabulary, scaler, problem.inputs)
    where = {"recording": [problem.recording]}
    said = defaultdict(list)
    for batch in Loader([problem.shards], split=split, batch_size=1, seed=0, where=where, collate=collate).epoch():
        with torch.no_grad():
            values = pick(model(batch))[0].double().numpy()
        n = batch.times.shape[1]
        for t in range(n):
            weight = 0.5 - 0.5 * np.cos(2 * np.pi * (t + 1) / (n + 1)) + 0.05
            said[round((float(batch.starts[0]) + float(batch.times[0, t])) * 1e4)].append((weight, values[t]))
    return np.array([sum(w * v for w, v in said[t]) / sum(w for w, _ in said[t]) for t in sorted(said)])


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("inputs", [("spikes",), ("eeg",)], ids="+".join)
def test_overlapping_windows_are_averaged_as_a_loop_would(problems, scaler, shards, split, inputs):
    problem = next(p for p in problems if p.inputs == inputs)
    model = model_of(build_vocabulary([shards]))
    block = load_block(problem.shards, problem.recording, split).signals["behaviour"]
    found = predict_block(model, problem, scaler, split)
    mean, std = scaler(problem.dataset, problem.session, "behaviour")
    for task in problem.tasks:
        columns = [block.ch_names.index(ch) for ch in task.channels or block.ch_names]
        guess = stitched(model, problem, scaler, split, lambda p, name=task.name: p.behaviour[f"simulation/{name}"])
        assert np.allclose(found[task.name].guess, guess * std[columns] + mean[columns], atol=1e-4)
        assert np.allclose(found[task.name].truth, block.values[:, columns], atol=1e-4, equal_nan=True)
        assert np.allclose(found[task.name].times, block.times + 0.5 / block.sfreq, atol=1e-6)
    latents = block_latents(model, problem, scaler, split)
    assert np.allclose(latents, stitched(model, problem, scaler, split, lambda p: p.latents.values), atol=1e-5)


def test_unknown_behaviour_is_not_scored(problem, scaler, shards):
    model = model_of(build_vocabulary([shards]))
    (first, second) = predictions(model, problem, scaler, "train", "m", "f", 0, 1.0)
    assert [p.task for p in (first, second)] == ["behaviour", "first"]
    assert first.mask.sum() == len(first.mask) - 16
    assert np.isfinite(first.scored[0]).all()
    assert np.isfinite(first.y_pred).all()


def test_a_fit_learns_the_tasks_of_its_problem_alone(tmp_path, problem, scaler):
    model = from_scratch(CFG, problem, scaler, seed=0)
    before = {task: head.weight.clone() for task, head in model.behaviour.items()}
    cfg = presets.TrainConfig(steps=1, batch_size=2, ema=0.0)
    fit_decoder(model, dataclasses.replace(problem, tasks=problem.tasks[:1]), scaler, cfg, AugmentConfig(), tmp_path, seed=0)
    assert [task for task, head in model.behaviour.items() if not torch.equal(head.weight, before[task])] == ["simulation/behaviour"]


def test_labels_limit_the_training_windows_alone(problem):
    few = dataclasses.replace(problem, labelled=(110.0, 114.0))
    table = pd.read_parquet(problem.shards / "windows.parquet")
    kept = table[table.key.isin(few.windows("train")["key"])]
    assert len(kept)
    assert set(kept.recording) == {problem.recording}
    assert ((kept.start < 114.0) & (kept.end > 110.0)).all()
    assert few.windows("test") == problem.windows("train") == {"recording": [problem.recording]}


# ---------------------------------------------------------------- files
def test_a_saved_decoder_comes_back(tmp_path, problem, scaler):
    model = from_scratch(CFG, problem, scaler, seed=4).eval()
    about = describe(model, problem, scaler)
    assert about.tasks == ("simulation/behaviour", "simulation/first")
    assert about.target_names == ("behaviour/x", "behaviour/y", "first/x")
    assert about.target_mean[0] == about.target_mean[2]
    assert (len(about.ids), about.dt, about.modality) == (40, 0.125, "spikes")
    save_decoder(tmp_path / "decoders" / "d", Decoder(model, about))
    (back,) = load_decoders(tmp_path)
    assert back.about == about
    assert back.model.vocabulary == model.vocabulary
    before, after = (predict_block(m, problem, scaler, "test")["behaviour"].guess for m in (model, back.model))
    assert np.array_equal(before, after)


def test_a_saved_model_comes_back(tmp_path, vocabulary):
    model = model_of(vocabulary)
    save_model(tmp_path, model)
    back = load_model(tmp_path)
    assert (back.cfg, back.vocabulary, back.training) == (model.cfg, vocabulary, False)
    assert all(torch.equal(a, b) for a, b in zip(back.state_dict().values(), model.state_dict().values(), strict=True))


def test_adapting_refuses_tasks_of_several_signals(tmp_path, shards, vocabulary):
    save_model(tmp_path / "base", model_of(vocabulary))
    cfg = AdaptConfig(seed=0, size="tiny", train=presets.TrainConfig())
    with pytest.raises(ValueError, match=r"spikes-calcium, .* read several signals and a decoder reads one"):
        adapt(cfg, tmp_path / "base", [shards], [], tmp_path)
