"""Baselines of labels: a contract over all of them, twins of their parts, and figures on real recordings."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from planted_labels import changed, parcels, planted, potentials

from neurofm_ml.config import to_dict
from neurofm_ml.data.recordings import save_recording
from neurofm_ml.data.scaler import fit
from neurofm_ml.data.windows import shard_recordings
from neurofm_ml.evaluation.label_baselines import LABEL_BASELINES, activity, eegnet, heads, spectra, together
from neurofm_ml.evaluation.label_baselines.choosing import choose
from neurofm_ml.evaluation.label_baselines.registry import CONNECTIVITY, PAIRS
from neurofm_ml.evaluation.label_baselines.views import look
from neurofm_ml.evaluation.tasks.label_tasks import find_label_cases
from neurofm_ml.knowledge.cards import SignalSpec, SplitSpec, TaskSpec, datasets
from neurofm_ml.presets import BaselinesConfig, IngestConfig, ScalerConfig, ShardsConfig, TrainConfig
from neurofm_ml.types import Intervals, Recording, Signal, Subject

CFG = BaselinesConfig(dataset="toy", train=TrainConfig(steps=80, batch_size=16, log_every=40, checkpoint_every=80))
#: What each is tried on.
MODALITIES = {
    "band_power_linear": ("eeg", "emg", "lfp"),
    "tangent_linear": ("eeg", "fmri"),
    "fc_ridge": ("fmri",),
    "fc_logistic": ("fmri",),
    "course_linear": ("spikes", "fmri", "meg"),
    "population_linear": ("calcium",),
    "knn": ("eeg", "spikes"),
    "boosting": ("spikes",),
}
PAIRED = [(name, modality) for name, modalities in MODALITIES.items() for modality in modalities]


def test_every_baseline_is_under_the_contract() -> None:
    assert {*MODALITIES, "eegnet"} == set(LABEL_BASELINES)


# ---------------------------------------------------------------- the contract
@pytest.mark.parametrize(("name", "modality"), PAIRED)
def test_what_is_planted_is_found_and_permuted_labels_are_at_chance(name: str, modality: str, tmp_path: Path) -> None:
    case = planted(modality)
    assert LABEL_BASELINES[name].applies(case)
    found = LABEL_BASELINES[name](case, CFG, tmp_path)
    assert found.value > 0.6
    assert found.control < 0.5
    assert found.y_pred.shape == (40, 3)
    assert (found.method, found.family, found.metric) == (name, "baseline", "balanced_accuracy")
    assert min(found.parameters, found.train_seconds, found.samples_per_second) > 0


@pytest.mark.parametrize(("name", "modality"), PAIRED)
def test_where_nothing_is_planted_nothing_is_found(name: str, modality: str, tmp_path: Path) -> None:
    assert LABEL_BASELINES[name](planted(modality, strength=0.0), CFG, tmp_path).value < 0.55


@pytest.mark.parametrize("name", [name for name in MODALITIES if name != "fc_logistic"])
def test_numbers_are_predicted_in_their_own_unit(name: str, tmp_path: Path) -> None:
    case = planted(MODALITIES[name][0], n_classes=0)
    found = LABEL_BASELINES[name](changed(case, y=100 + 10 * case.sources[0].y), CFG, tmp_path)
    assert found.y_pred.shape == (40, 1)
    assert found.value > 0.2
    assert abs(found.y_pred.mean() - 100) < 10


@pytest.mark.parametrize("name", MODALITIES)
def test_the_test_windows_have_no_part_in_fitting(name: str) -> None:
    case = planted(MODALITIES[name][0])
    source, rng = case.sources[0], np.random.default_rng(9)
    test = source.split == "test"
    noise = [1 + 9 * rng.random(v.shape) if t else v for v, t in zip(source.values, test, strict=True)]
    other = changed(case, values=noise, y=np.where(test, 2 - source.y, source.y))
    said = [_chosen(name, c) for c in (case, other)]
    np.testing.assert_array_equal(*(chosen.answer("train") for chosen in said))
    np.testing.assert_array_equal(*(chosen.answer("validation") for chosen in said))
    assert not np.allclose(*(chosen.answer("test") for chosen in said))


@pytest.mark.parametrize("name", MODALITIES)
def test_the_order_of_channels_means_nothing(name: str) -> None:
    case = planted(MODALITIES[name][0])
    source, order = case.sources[0], np.array([3, 0, 4, 1, 2])
    names = {"s": tuple(source.names["s"][k] for k in order)}
    other = changed(case, values=[v[:, order] for v in source.values], names=names)
    said, again = (_chosen(name, c).answer("test") for c in (case, other))
    assert np.abs(said - again).mean() < 0.02  # trees break ties by the order of features


def test_probabilities_are_given_as_if_classes_were_equally_frequent() -> None:
    case = planted("spikes", n_classes=2)
    seldom = changed(case, y=(np.arange(len(case.sources[0].y)) % 4 == 0).astype(float))
    frequency = np.bincount(seldom.data.labels("train").astype(int)) / 60
    np.testing.assert_allclose(seldom.data.equalised(frequency[None]), [[0.5, 0.5]])
    years = planted("spikes", n_classes=0).data
    np.testing.assert_array_equal(years.equalised(np.array([[30.0]])), [[30.0]])


@pytest.mark.parametrize("name", ["fc_ridge", "tangent_linear", "knn"])
def test_people_are_answered_once_per_recording(name: str, tmp_path: Path) -> None:
    case = planted("fmri", n_classes=2, of_subject=True)
    found = LABEL_BASELINES[name](case, CFG, tmp_path)
    assert len(found.y_true) == len(found.units) == 20
    assert found.value > 0.7
    (table,) = (look(case.data, PAIRS[0]),)
    assert {s: len(x) for s, x in table.x.items()} == {"train": 30, "validation": 15, "test": 20}


def test_a_channel_that_never_moves_does_no_harm() -> None:
    for modality in ("eeg", "fmri"):
        case = planted(modality)
        values = [v.copy() for v in case.sources[0].values]
        for v in values[::7]:
            v[:, 2] = 5.0
        still = changed(case, values=values)
        for name in (n for n, m in PAIRED if m == modality):
            said = _chosen(name, still).answer("test")
            assert np.isfinite(said).all()
            assert still.data.score("test", said) > 0.55


def _chosen(name, case):
    baseline = LABEL_BASELINES[name]
    return choose(case.data, {v.name: look(case.data, v) for v in baseline.views(case)}, baseline.head, 0)


# ---------------------------------------------------------------- parts
@pytest.mark.parametrize(("modality", "hz"), [("eeg", 10.0), ("emg", 60.0), ("lfp", 90.0)])
def test_power_is_in_the_band_of_its_sine(modality: str, hz: float) -> None:
    t = np.arange(512) / 400.0
    wave = np.stack([np.sin(2 * np.pi * hz * t), 0 * t], 1) + 1e-3 * np.random.default_rng(0).normal(size=(512, 2)) * [[1, 0]]
    signal = Signal(wave, 400.0, modality)
    power = spectra.band_power(signal)
    low, high = spectra.bands_of(signal)[int(power[0].argmax())]
    assert low <= hz < high
    assert np.isnan(power[1]).all()
    total = sum(np.exp(p) * (high - low) for p, (low, high) in zip(power[0], spectra.bands_of(signal), strict=True))
    assert total == pytest.approx(0.5, rel=0.3)


def test_bands_that_a_window_cannot_resolve_are_left_out() -> None:
    assert spectra.bands_of(Signal(np.zeros((400, 1)), 200.0, "emg"))[-1] == (70, 95)
    assert spectra.bands_of(Signal(np.zeros((16, 1)), 128.0, "eeg"))[0] == (8, 13)


def test_the_course_is_means_of_stretches() -> None:
    values = np.arange(12.0)[:, None] * [1.0, 2.0]
    values[0, 0] = np.nan
    np.testing.assert_allclose(activity.quarters(Signal(values, 1.0, "physio")), [[1.5, 4, 7, 10], [2, 8, 14, 20]])
    np.testing.assert_allclose(activity.mean(Signal(np.full((4, 1), 9.0), 1.0, "spikes")), [[3.0]])


def test_what_is_said_of_a_population_does_not_depend_on_who_is_in_it() -> None:
    values = np.random.default_rng(0).poisson(3, (50, 6)).astype(float)
    one, other = (activity.population(Signal(v, 1.0, "spikes")) for v in (values, values[:, ::-1]))
    np.testing.assert_allclose(one, other)
    alike = activity.population(Signal(np.repeat(values[:, :1], 6, axis=1), 1.0, "spikes"))
    assert alike[10] == pytest.approx(np.log(6))


def test_few_independent_samples_shrink_a_filtered_covariance() -> None:
    rng = np.random.default_rng(0)
    signal = Signal(rng.normal(size=(256, 12)), 256.0, "eeg")
    narrow = together.bank(signal)
    assert narrow.shape == (len(spectra.bands_of(signal)), 12, 12)
    assert all(np.linalg.cond(c) < 1e3 for c in narrow)
    assert np.trace(narrow.sum(0)) < np.trace(together.broad(signal)[0])
    assert np.allclose(together.broad(signal)[0], np.cov(signal.values.T, bias=True), atol=0.2)


@pytest.mark.parametrize("make", [potentials, parcels])
def test_channels_beyond_the_most_become_components(make: Callable) -> None:
    rng = np.random.default_rng(0)
    case = planted("eeg")
    mixing = rng.normal(size=(5, 70))
    wide = changed(case, values=[v @ mixing for v in case.sources[0].values], names={"s": tuple(f"c{k}" for k in range(70))})
    few = dataclasses.replace(CONNECTIVITY[0], most=5)
    assert look(wide.data, few).x["train"].shape == (60, 15)


def test_neighbours_count_for_rare_classes_as_for_frequent_ones() -> None:
    x, y = np.r_[np.zeros(9), np.ones(1)][:, None], np.r_[np.zeros(9), np.ones(1)]
    (everyone,) = (f for f in heads.nearest(x, y, 2, 0) if f.k == 8)
    (single,) = (f for f in heads.nearest(x, y, 2, 0) if f.k == 1)
    np.testing.assert_allclose(everyone.target.sum(0), [5, 5])
    np.testing.assert_array_equal(single(np.array([[0.1], [0.9]])).argmax(1), [0, 1])


def test_a_class_that_training_lacks_is_never_said() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), rng.integers(0, 2, 40) * 2.0
    for head in (heads.linear, heads.ridge, heads.nearest, heads.boosting):
        for fitted in head(x, y, 4, 0):
            said = fitted(x)
            assert said.shape == (40, 4)
            assert set(said.argmax(1)) <= {0, 2}


def test_trees_are_those_of_a_model_that_was_grown_so_far() -> None:
    from sklearn.ensemble import HistGradientBoostingRegressor

    rng = np.random.default_rng(0)
    x = rng.normal(size=(80, 4))
    y = x[:, 0] ** 2 + 0.1 * rng.normal(size=80)
    for fitted in heads.boosting(x, y, 0, 0):
        twin = HistGradientBoostingRegressor(
            max_leaf_nodes=fitted.leaves, max_iter=fitted.trees, learning_rate=0.2, min_samples_leaf=5, max_bins=32, early_stopping=False
        )
        np.testing.assert_allclose(fitted(x)[:, 0], twin.fit(x, y).predict(x))


# ---------------------------------------------------------------- EEGNet, on shards
TASK = TaskSpec(name="rhythm", target="intervals.blocks", inputs=("eeg",), classes=("slow", "fast"), metric="auroc")


def eeg_shards(folder: Path, seed: int = 0) -> tuple[Path, Path]:
    """140 s of two channels, half of each four seconds at 6 Hz and half at 20; after 105 s, the noise depends on `seed`."""
    sfreq, t = 64.0, np.arange(140 * 64) / 64.0
    fast = (t // 2).astype(int) % 2
    noise = np.random.default_rng(7).normal(size=(len(t), 2))
    late = t >= 105
    noise[late] = np.random.default_rng(seed).normal(size=(int(late.sum()), 2))
    wave = np.sin(2 * np.pi * np.where(fast, 20, 6) * t)
    start = np.arange(0, 140, 2.0)
    blocks = Intervals(start, start + 2, tuple("fast" if k % 2 else "slow" for k in range(len(start))))
    signal = Signal((noise + 1.5 * wave[:, None]).astype(np.float32), sfreq, "eeg", ch_names=("C3", "C4"))
    recording = Recording("r", "toy", Subject("s"), "v", "Homo sapiens", "CC0", {"eeg": signal}, {"blocks": blocks}, (0.0, 140.0))
    card = dataclasses.replace(
        datasets()["simulation"], name="toy", signals={"eeg": SignalSpec(modality="eeg", sfreq=sfreq)}, tasks=(TASK,),
        split=SplitSpec(train=0.6, validation=0.15), grid_hz=8.0, window_s=1.0, stride_s=1.0,
    )  # fmt: skip
    for name in ("recordings", "shards", "scaler"):
        (folder / name).mkdir(parents=True)
    save_recording(recording, folder / "recordings" / "recordings")
    (folder / "recordings" / "card.json").write_text(json.dumps(to_dict(card)))
    shard_recordings(ShardsConfig(dataset="toy"), folder / "recordings", folder / "shards")
    fit(ScalerConfig(modality="eeg"), [folder / "shards"], folder / "scaler")
    return folder / "shards", folder / "scaler"


def test_eegnet_finds_a_rhythm_and_scores_windows_in_their_order(tmp_path: Path) -> None:
    shards, scaler = eeg_shards(tmp_path)
    (case,) = find_label_cases(shards, [scaler])
    baseline = LABEL_BASELINES["eegnet"]
    assert baseline.applies(case)
    assert not baseline.applies(dataclasses.replace(case, task=dataclasses.replace(TASK, name="other")))
    found = baseline(case, CFG, tmp_path / "out")
    assert found.value > 0.9
    np.testing.assert_array_equal(found.y_true[:, 0], case.data.labels("test"))
    assert not list((tmp_path / "out").rglob("checkpoints"))


def test_eegnet_is_trained_on_training_windows_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    states = []

    def remembered(case, model):
        states.append(model.state_dict())
        return np.full((int((case.data.rows.split == "test").sum()), 2), 0.5)

    monkeypatch.setattr(eegnet, "_answers", remembered)
    for seed in (1, 2):
        shards, scaler = eeg_shards(tmp_path / str(seed), seed)
        (case,) = find_label_cases(shards, [scaler])
        LABEL_BASELINES["eegnet"](case, dataclasses.replace(CFG, train=TrainConfig(steps=3, batch_size=4)), tmp_path / str(seed) / "out")
    assert all(torch.equal(a, b) for a, b in zip(*(state.values() for state in states), strict=True))


# ---------------------------------------------------------------- real recordings
@pytest.mark.slow
@pytest.mark.skipif("NEUROFM_DATA" not in os.environ, reason="NEUROFM_DATA does not name real recordings")
@pytest.mark.parametrize(
    ("dataset", "task", "method", "least"),
    [
        ("biosppy_eeg_eyes", "eyes", "band_power_linear", 0.85),
        ("eeg_muse_ssvep", "frequency", "tangent_linear", 0.7),
        ("monkey_reach_datahigh", "reach", "course_linear", 0.8),
    ],
)
def test_reference_points_on_real_recordings(dataset: str, task: str, method: str, least: float, tmp_path: Path) -> None:
    """Figures measured on these cards' splits, less what another version of a library may move."""
    from neurofm_ml.data.ingest import ingest
    from neurofm_ml.knowledge.files import raw_files

    for name in ("recordings", "shards"):
        (tmp_path / name).mkdir()
    ingest(IngestConfig(dataset=dataset), raw_files(datasets()[dataset]), tmp_path / "recordings")
    shard_recordings(ShardsConfig(dataset=dataset), tmp_path / "recordings", tmp_path / "shards")
    (case,) = (c for c in find_label_cases(tmp_path / "shards", []) if c.task.name == task)
    assert LABEL_BASELINES[method](case, BaselinesConfig(dataset=dataset), tmp_path).value >= least
