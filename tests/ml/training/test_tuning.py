"""Tuning maps of planted units, and the rows they become."""

import dataclasses
from typing import cast

import numpy as np
import pytest
import torch

from neurofm_ml import presets
from neurofm_ml.config import patch
from neurofm_ml.data.batches import build_vocabulary
from neurofm_ml.data.scaler import standardised
from neurofm_ml.data.windows import load_block
from neurofm_ml.models import NeuroFMx
from neurofm_ml.training.problems import target_scale
from neurofm_ml.training.tuning import REACH, embed_by_tuning, spread, tuning_maps
from neurofm_ml.types import Array, Signal

PREFERRED = np.array([[-1.2, -0.9], [0.0, 0.5], [0.9, 1.2], [1.2, -1.2]])


def session(seed: int, preferred: Array = PREFERRED, width: float = 0.7) -> tuple[Array, Array]:
    """A walk through the plane and the z-scored, noisy activity (T, N) of units with Gaussian tuning."""
    rng = np.random.default_rng(seed)
    behaviour = rng.uniform(-REACH, REACH, (8000, 2))
    rate = np.exp(-((behaviour[:, None] - preferred) ** 2).sum(-1) / (2 * width**2))
    noisy = rate + 0.3 * rng.normal(size=rate.shape)
    return (noisy - noisy.mean(0)) / noisy.std(0), behaviour


@pytest.mark.parametrize("d_model", [64, 128])
def test_a_map_peaks_at_the_preferred_point(d_model):
    maps, points = tuning_maps(*session(0), d_model), spread(d_model, 2)
    spacing = 2 * REACH / (d_model**0.5 - 1)
    assert np.linalg.norm(points[maps.argmax(1)] - PREFERRED, axis=1).max() < spacing


def test_units_tuned_alike_have_rows_alike_in_every_session():
    a, b = (tuning_maps(*session(seed), 64) for seed in (1, 2))
    cosine = (a @ b.T) / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)
    assert np.diag(cosine).min() > 0.98
    assert cosine[~np.eye(4, dtype=bool)].max() < 0.6


@pytest.mark.parametrize("n_units", [1, 40])
def test_norm_is_that_of_random_rows(n_units):
    preferred = np.random.default_rng(0).uniform(-2, 2, (n_units, 2))
    assert np.linalg.norm(tuning_maps(*session(0, preferred), 64)) == pytest.approx(8.0, rel=1e-5)


def test_a_unit_is_weaker_where_the_animal_never_was():
    activity, behaviour = session(3)
    left = behaviour[:, 0] < 0
    maps, points = tuning_maps(activity[left], behaviour[left], 64), spread(64, 2)
    assert np.abs(maps[:, points[:, 0] > 1.5]).max() < 0.1 * np.abs(maps).max()


def test_without_bins_there_is_no_map():
    assert (tuning_maps(np.zeros((0, 3)), np.zeros((0, 2)), 16) == 0).all()


@pytest.mark.parametrize(("n", "k"), [(64, 2), (64, 3), (64, 1), (48, 2), (128, 2), (1536, 2), (64, 4)])
def test_points_fill_the_box_evenly(n, k):
    points = spread(n, k)
    assert points.shape == (n, k)
    assert len(np.unique(points, axis=0)) == n
    assert np.abs(points).max() <= REACH
    assert np.abs(points.mean(0)).max() < 0.2 * REACH
    assert np.abs(points.std(0) / (2 * REACH / 12**0.5) - 1).max() < 0.35


# ---------------------------------------------------------------- rows of a model
@pytest.fixture
def model(shards) -> NeuroFMx:
    torch.manual_seed(0)
    return NeuroFMx(patch(presets.neurofmx("tiny"), {"d_model": 16, "n_heads": 2, "d_state": 4}), build_vocabulary([shards]))


def rows(model: NeuroFMx, modality: str, session: str) -> Array:
    names = model.vocabulary.channels[modality]
    mine = [i + 1 for i, name in enumerate(names) if name.startswith(f"simulation/{session}/")]
    return model.tokenizer(modality).channels.table.weight[mine].detach().numpy()


def bins_of(problem, scaler, name: str) -> tuple[Array, Array, Array]:
    """Times (T,), z-scored activity and z-scored behaviour of every sample of the training block, one sample at a time."""
    block = load_block(problem.shards, problem.recording, "train")
    signal, target = cast(Signal, block.signals[name]), cast(Signal, block.signals["behaviour"])
    mean, std = target_scale(problem, problem.tasks[0], scaler)
    times = signal.times + 0.5 / signal.sfreq
    behaviour = [(target.values[int((t - target.t0) * target.sfreq)] - mean) / std for t in times]
    activity = standardised(signal.values, signal.modality, *scaler(problem.dataset, problem.session, name))
    return times, activity, np.array(behaviour)


@pytest.mark.parametrize(("inputs", "modality"), [(("spikes",), "spikes"), (("calcium",), "calcium")])
def test_rows_are_the_maps_of_all_recordings_of_a_session(model, problems, scaler, inputs, modality):
    """Calcium is sampled twice in a bin of behaviour; bins without behaviour do not count."""
    mine = [dataclasses.replace(p, tasks=p.tasks[:1]) for p in problems if p.inputs == inputs]
    embed_by_tuning(model, mine, scaler)
    parts = [bins_of(p, scaler, modality) for p in mine if p.session == "one"]
    assert len(parts) == 2
    activity, behaviour = (np.concatenate(part) for part in list(zip(*parts, strict=True))[1:])
    known = np.isfinite(behaviour).all(1)
    assert 0 < known.sum() < len(known)
    assert np.allclose(rows(model, modality, "one"), tuning_maps(activity[known], behaviour[known], 16), atol=1e-5)


def test_only_labelled_seconds_count(model, problems, scaler):
    problem = dataclasses.replace(next(p for p in problems if p.session == "two"), labelled=(110.0, 125.3))
    problem = dataclasses.replace(problem, tasks=problem.tasks[:1])
    embed_by_tuning(model, [problem], scaler)
    times, activity, behaviour = bins_of(problem, scaler, "spikes")
    use = (times >= 110.0) & (times < 125.3)
    assert np.allclose(rows(model, "spikes", "two"), tuning_maps(activity[use], behaviour[use], 16), atol=1e-5)


def test_tasks_on_the_same_input_make_one_map(model, problems, scaler):
    problem = next(p for p in problems if p.inputs == ("spikes",))
    assert [t.name for t in problem.tasks] == ["behaviour", "first"]
    before = rows(model, "spikes", "two")
    embed_by_tuning(model, [problem], scaler)
    assert np.linalg.norm(rows(model, "spikes", "one")) == pytest.approx(4.0, rel=1e-5)
    assert np.array_equal(rows(model, "spikes", "two"), before)


def test_where_problems_share_a_population_the_first_decides(model, problems, scaler):
    session = [p for p in problems if p.session == "two"]
    embed_by_tuning(model, session, scaler)
    all_of_them = rows(model, "spikes", "two")
    embed_by_tuning(model, [p for p in session if p.inputs == ("spikes",)], scaler)
    assert np.array_equal(rows(model, "spikes", "two"), all_of_them)


def test_electrodes_get_no_map_and_padding_no_row(model, problems, scaler):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    embed_by_tuning(model, problems, scaler)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {f"tokenizers.{m}.channels.table.weight" for m in ("spikes", "calcium")}
    assert all((model.tokenizer(m).channels.table.weight[0] == 0).all() for m in ("spikes", "calcium", "eeg"))
