"""Baselines: planted truth, scikit-learn as twin, the job on simulated shards, and the reference points on real ones."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsRegressor

from neurofm_ml.data.predictions import Prediction, load_predictions
from neurofm_ml.data.windows import load_block, shard_recordings
from neurofm_ml.evaluation.baselines import baselines, inferred
from neurofm_ml.evaluation.baselines.baselines import BASELINES, fit_baselines, questions, roots
from neurofm_ml.evaluation.baselines.forecasting import FORECASTS
from neurofm_ml.evaluation.baselines.inferred import population_of
from neurofm_ml.evaluation.baselines.knn import fit_knn
from neurofm_ml.evaluation.baselines.reconstruction import RECONSTRUCTIONS
from neurofm_ml.evaluation.baselines.ridge import fit_ridge, lagged
from neurofm_ml.evaluation.features.probe import probe_series
from neurofm_ml.evaluation.scoring.scores import read_scores
from neurofm_ml.evaluation.tasks import tasks
from neurofm_ml.evaluation.tasks.tasks import Case, DecodingData, find_cases
from neurofm_ml.presets import SPLITS, BaselinesConfig, IngestConfig, RatesConfig, ShardsConfig, TrainConfig
from neurofm_ml.types import Array, Recording, Signal

SIZES = {"train": 600, "validation": 150, "test": 250}


def _data(x: Array, y: Array, counts: bool = False) -> DecodingData:
    """x (1000, N), y (1000, K) cut into three blocks."""
    cuts = np.cumsum(list(SIZES.values()))[:-1]
    blocks = [dict(zip(SPLITS, np.split(values, cuts), strict=True)) for values in (x, y, np.arange(len(x)) / 5)]
    return DecodingData(*blocks, np.full(x.shape[1], counts))


@pytest.fixture
def delayed(make_series) -> DecodingData:
    """Channels that follow the target by three bins, with noise of a tenth of their variance."""
    rng = np.random.default_rng(0)
    y = make_series(rng, 0.5, 1003)
    x = y[:-3] @ rng.normal(size=(2, 6))
    return _data(x + np.sqrt(0.1 * x.var()) * rng.normal(size=x.shape), y[3:])


@pytest.fixture
def place_cells(make_series) -> DecodingData:
    """40 Poisson units with a place field each; the target is the place."""
    rng = np.random.default_rng(0)
    place = make_series(rng, 0.95, 1000)
    fields = rng.normal(size=(40, 2)) * 1.5
    rates = 3 * np.exp(-((place[:, None] - fields) ** 2).sum(2) / (2 * 0.5**2))
    return _data(rng.poisson(rates).astype(float), place, counts=True)


def _test_r2(data: DecodingData, fit, features) -> float:
    return data.r2("test", fit.predict(features["test"]))


def test_ridge_finds_a_delayed_target_and_needs_its_lags(delayed: DecodingData) -> None:
    tuned, blind = fit_ridge(delayed, delayed.x), fit_ridge(delayed, delayed.x, lags=(0, 1, 2))
    assert tuned.lag >= 4
    assert _test_r2(delayed, tuned, delayed.x) > 0.85
    assert _test_r2(delayed, blind, delayed.x) < 0.4


@pytest.mark.parametrize("lag", [1, 60])
def test_ridge_agrees_with_scikit_learn(delayed: DecodingData, lag: int) -> None:
    """With few features and with more features than bins."""
    fit = fit_ridge(delayed, delayed.x, lags=(lag,))
    features = {s: lagged(x - delayed.x["train"].mean(0), lag) for s, x in delayed.x.items()}
    penalty = fit.alpha * (features["train"] ** 2).sum() / features["train"].shape[1]
    target = delayed.y["train"] - delayed.y["train"].mean(0)
    twin = Ridge(alpha=penalty, fit_intercept=False).fit(features["train"], target)
    expected = twin.predict(features["test"]) + delayed.y["train"].mean(0)
    np.testing.assert_allclose(fit.predict(delayed.x["test"]), expected, rtol=1e-6, atol=1e-8)


def test_lagged_puts_past_and_future_beside_each_bin() -> None:
    x = np.arange(1.0, 5.0)[:, None]
    np.testing.assert_array_equal(lagged(x, 1), [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 0]])


def test_knn_decodes_place_better_than_a_line_can(place_cells: DecodingData) -> None:
    knn, ridge = fit_knn(place_cells), fit_ridge(place_cells, roots(place_cells))
    assert _test_r2(place_cells, knn, place_cells.x) > max(0.8, _test_r2(place_cells, ridge, roots(place_cells)) + 0.05)


def test_knn_agrees_with_scikit_learn(place_cells: DecodingData) -> None:
    fit = fit_knn(place_cells)
    twin = KNeighborsRegressor(fit.k).fit(fit.seen, fit.y)
    query = fit.view.of(place_cells.x["test"], place_cells.counts)
    np.testing.assert_allclose(fit.predict(place_cells.x["test"]), twin.predict(query))


@pytest.mark.parametrize("fit", [lambda d: fit_ridge(d, d.x, lags=(0,)), fit_knn])
def test_labels_that_are_not_known_are_not_used(delayed: DecodingData, fit: Callable) -> None:
    """A value nobody knows must not matter: the same fit comes out whatever it was."""
    holes = {s: np.where(np.arange(len(y))[:, None] % 3 == 0, np.nan, y) for s, y in delayed.y.items()}
    masked = dataclasses.replace(delayed, y=holes)
    guess = fit(masked).predict(delayed.x["test"])
    assert np.isfinite(guess).all()
    wild = dataclasses.replace(delayed, y={s: np.where(np.isnan(h), np.inf, h) for s, h in holes.items()})
    np.testing.assert_array_equal(guess, fit(wild).predict(delayed.x["test"]))


def test_choices_never_see_the_test_block(place_cells: DecodingData) -> None:
    blind = dataclasses.replace(place_cells, y={**place_cells.y, "test": np.full_like(place_cells.y["test"], np.nan)})
    for fit in (fit_knn, lambda d: fit_ridge(d, d.x)):
        np.testing.assert_array_equal(fit(place_cells).predict(place_cells.x["test"]), fit(blind).predict(place_cells.x["test"]))


def test_fitted_again_on_rolled_labels_they_are_at_chance(place_cells: DecodingData) -> None:
    control = place_cells.with_rolled_labels()
    assert _test_r2(control, fit_ridge(control, roots(control)), roots(control)) < 0.1
    assert _test_r2(control, fit_knn(control), control.x) < 0.1


def test_cases_are_read_from_shards(shards: Path) -> None:
    spikes, calcium = find_cases(shards, [])
    assert (spikes.key, spikes.modality, calcium.modality) == (("simulation", "sub1_ses1", "behaviour"), "spikes", "calcium")
    assert {s: len(x) for s, x in spikes.data.x.items()} == {"train": 472, "validation": 112, "test": 200}
    assert all(len(spikes.data.x[s]) == len(spikes.data.y[s]) == len(spikes.data.times[s]) for s in SPLITS)
    assert spikes.data.times["test"][0] == pytest.approx(75 + 0.5 / 8)
    assert spikes.data.counts.all()
    assert float(spikes.data.x["train"].min()) == 0
    np.testing.assert_allclose(calcium.data.x["train"].mean(0), 0, atol=1e-9)
    np.testing.assert_allclose(calcium.data.x["train"].std(0), 1, rtol=1e-9)


def test_an_input_off_the_grid_is_refused(shards: Path) -> None:
    case = find_cases(shards, [])[0]
    fmri = dataclasses.replace(case, task=dataclasses.replace(case.task, inputs=("fmri",)))
    with pytest.raises(ValueError, match="'fmri' has 1 Hz and 'behaviour' 8 Hz"):
        fmri.data  # noqa: B018


def test_a_target_that_stands_still_is_refused(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = find_cases(shards, [])[0]
    monkeypatch.setattr(tasks, "load_block", lambda *where: _still(load_block(*where)) if where[2] == "test" else load_block(*where))
    with pytest.raises(ValueError, match=r"simulation/sub1_ses1/behaviour: .*'behaviour' is constant or unknown in the whole test block"):
        case.data  # noqa: B018


def _still(block: Recording) -> Recording:
    target = block.signals["behaviour"]
    assert isinstance(target, Signal)
    return block.with_signals({**block.signals, "behaviour": dataclasses.replace(target, values=np.ones_like(target.values))}, "stopped")


def test_the_job_answers_every_question_with_every_method(shards: Path, scalers: list[Path], tmp_path: Path) -> None:
    """Decoding, and forecasts and reconstruction of each signal; of fMRI, one sample a second, the blocks are too short to forecast."""
    cfg = BaselinesConfig(dataset="simulation")
    asked = list(questions(cfg, [shards], scalers, tmp_path))
    methods = {key: [q.method for q in asked if q.case.key == key] for key in {q.case.key for q in asked}}
    decoding = {case.key for case in find_cases(shards, scalers)}
    assert all(methods[key] == list(BASELINES) for key in decoding)
    assert {key[2] for key in set(methods) - decoding} == {
        *(f"{s}_reconstruction" for s in ("spikes", "calcium", "eeg", "fmri")),
        *(f"{s}_in_{h}s" for s in ("spikes", "calcium", "eeg") for h in ("0.1", "1")),
    }
    assert all(len(names) == len(set(names)) > 1 for names in methods.values())
    assert methods["simulation", "sub1_ses1", "eeg_reconstruction"] == ["ridge", "pca", "factor_analysis"]


def test_the_job_leaves_predictions_and_scores(shards: Path, scalers: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "BASELINES", {name: BASELINES[name] for name in ("ridge", "knn", "gru")})
    monkeypatch.setattr(baselines, "FORECASTS", {"copy_last": FORECASTS["copy_last"]})
    monkeypatch.setattr(baselines, "RECONSTRUCTIONS", {"ridge": RECONSTRUCTIONS["ridge"]})
    cfg = BaselinesConfig(dataset="simulation", train=TrainConfig(steps=2, batch_size=4))
    report = fit_baselines(cfg, [shards], scalers, tmp_path)
    predictions, table = load_predictions(tmp_path / "predictions"), read_scores(tmp_path / "scores.parquet")
    decoding = [p for p in predictions if p.task.startswith("behaviour")]
    assert len(predictions) == len(table) == 2 * 3 + 6 + 4
    assert all(p.y_pred.shape == p.y_true.shape == (200, 2) and p.family == "baseline" for p in decoding)
    for case in find_cases(shards, []):
        for same in (p for p in predictions if p.case == case.key):
            np.testing.assert_allclose(same.y_true, case.data.y["test"], rtol=1e-4, atol=1e-4)
            np.testing.assert_allclose(same.times, case.data.times["test"])
    assert all(np.isfinite(p.control) and p.control < 0.1 for p in decoding if p.method != "gru")
    assert report.metrics["tasks"] == 2 + 6 + 4
    assert table[(table.method == "ridge") & table.task.str.startswith("behaviour")].value.min() > 0.5


def test_a_killed_job_fits_only_what_is_missing(shards: Path, scalers: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cfg, fitted = BaselinesConfig(dataset="simulation"), []

    def ridge(case: Case, cfg: BaselinesConfig, out: Path) -> Prediction:
        fitted.append(case.key)
        if len(fitted) == 2:
            raise KeyboardInterrupt
        return BASELINES["ridge"](case, cfg, out)

    monkeypatch.setattr(baselines, "BASELINES", {"ridge": ridge})
    monkeypatch.setattr(baselines, "FORECASTS", {})
    monkeypatch.setattr(baselines, "RECONSTRUCTIONS", {})
    with pytest.raises(KeyboardInterrupt):
        fit_baselines(cfg, [shards], scalers, tmp_path)
    fit_baselines(cfg, [shards], scalers, tmp_path)
    assert fitted[1] == fitted[2] != fitted[0]
    assert len(fitted) == 3
    assert len(read_scores(tmp_path / "scores.parquet")) == 2


def test_what_a_population_was_inferred_to_do_is_inferred_once(
    shards: Path, scalers: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For decoding and reconstruction alike, and by a job that was killed in between."""
    cfg = BaselinesConfig(dataset="simulation", rates=RatesConfig(updates=2, d_model=16, segment=16, batch_size=4))
    case = find_cases(shards, scalers)[0]
    population = population_of(case)
    assert population is not None
    said = BASELINES["ndt"](case, cfg, tmp_path)
    monkeypatch.setattr(inferred, "fit_rates", lambda *_: pytest.fail("fitted again"))
    again = RECONSTRUCTIONS["ndt"](population, cfg, tmp_path)
    np.testing.assert_array_equal(BASELINES["ndt"](case, cfg, tmp_path).y_pred, said.y_pred)
    assert again.parameters < said.parameters


def test_a_probe_reads_what_the_latents_hold(shards: Path) -> None:
    case = find_cases(shards, [])[0]
    rng = np.random.default_rng(0)
    latents = {s: np.c_[y @ rng.normal(size=(y.shape[1], 4)) + 0.1, rng.normal(size=(len(y), 2))] for s, y in case.data.y.items()}
    mixed = {s: np.c_[y, 0 * y + 7] for s, y in case.data.y.items()}
    probe = probe_series([case], {"latents": mixed}, "neurofmx", seed=3)[0].prediction
    assert (probe.method, probe.family, probe.seed) == ("linear_probe", "neurofmx", 3)
    assert case.data.r2("test", probe.y_pred) > 0.99
    blind = {"latents": {s: v[:, 4:] for s, v in latents.items()}}
    assert probe_series([case], blind, "neurofmx", seed=3)[0].prediction.control < 0.1


@pytest.mark.skipif("NEUROFM_DATA" not in os.environ, reason="NEUROFM_DATA does not name real recordings")
def test_reference_points_on_a_monkey(tmp_path: Path) -> None:
    """At least the plain baselines measured independently on the same blocks: ridge .56/.51, kNN .73/.72."""
    from neurofm_ml.data.ingest import ingest
    from neurofm_ml.knowledge.cards import datasets
    from neurofm_ml.knowledge.files import raw_files

    name = "monkey_m1_chewie"
    for folder in ("recordings", "shards"):
        (tmp_path / folder).mkdir()
    ingest(IngestConfig(dataset=name), raw_files(datasets()[name]), tmp_path / "recordings")
    shard_recordings(ShardsConfig(dataset=name), tmp_path / "recordings", tmp_path / "shards")
    expected = {"tr": {"ridge": 0.648, "knn": 0.728}, "te": {"ridge": 0.626, "knn": 0.774}}
    for case in find_cases(tmp_path / "shards", []):
        data, features = case.data, roots(case.data)
        found = {"ridge": _test_r2(data, fit_ridge(data, features), features), "knn": _test_r2(data, fit_knn(data), data.x)}
        assert found == pytest.approx(expected[case.recording], abs=0.01)
