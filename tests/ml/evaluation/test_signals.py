"""Forecasts and reconstructions of neural signals: planted dynamics, references, and that nobody sees what is asked."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from neurofm_ml.data.batches import build_vocabulary
from neurofm_ml.data.predictions import Prediction, load_predictions
from neurofm_ml.evaluation.baselines import forecasting, reconstruction
from neurofm_ml.evaluation.baselines.baselines import why_unasked
from neurofm_ml.evaluation.baselines.forecasting import FORECASTS, model_forecast, origins
from neurofm_ml.evaluation.baselines.readings import in_samples, signal_batches, stitched
from neurofm_ml.evaluation.baselines.reconstruction import RECONSTRUCTIONS, model_reconstruction, targets
from neurofm_ml.evaluation.scoring import signal_answers, signal_probes
from neurofm_ml.evaluation.scoring.signal_probes import probe_forecasts, probe_reconstruction
from neurofm_ml.evaluation.tasks.signals import Activity, SignalCase, find_signals, held_out
from neurofm_ml.models import NeuroFMx
from neurofm_ml.presets import SPLITS, BaselinesConfig, NeuroFMxConfig, RatesConfig, SignalsConfig
from neurofm_ml.training.saved import save_model
from neurofm_ml.types import Array, Batch

CFG = BaselinesConfig(dataset="simulation", rates=RatesConfig(updates=60, d_model=32, segment=16, lr=0.01))
SIGNALS = ("spikes", "calcium", "eeg", "fmri")


@pytest.fixture(scope="module")
def cases(shards: Path, scalers: list[Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, SignalCase]:
    """Task -> case."""
    from neurofm_ml.data.scaler import fit
    from neurofm_ml.presets import ScalerConfig

    more = [tmp_path_factory.mktemp(name) for name in ("eeg", "fmri")]
    for folder, modality in zip(more, ("eeg", "fmri"), strict=True):
        fit(ScalerConfig(modality=modality), [shards], folder)
    return {case.task: case for case in find_signals(shards, [*scalers, *more], CFG.horizons_s)}


@pytest.fixture(scope="module")
def model(shards: Path) -> NeuroFMx:
    torch.manual_seed(0)
    made = NeuroFMx(NeuroFMxConfig(d_model=32), build_vocabulary([shards]))
    torch.nn.init.normal_(made.forecast.leave.weight)
    return made.eval()


def test_every_signal_is_asked_for_what_it_is_sampled_for(cases: dict[str, SignalCase]) -> None:
    """The longest horizon stands for all that fMRI, one sample a second, cannot tell apart."""
    forecasts = {f"{s}_in_{h}s" for s in SIGNALS for h in ("0.1", "1") if (s, h) != ("fmri", "0.1")}
    assert set(cases) == forecasts | {f"{s}_reconstruction" for s in SIGNALS}
    assert {name: cases[name].lead for name in ("spikes_in_0.1s", "spikes_in_1s", "eeg_in_0.1s", "fmri_in_1s")} == {
        "spikes_in_0.1s": 1, "spikes_in_1s": 8, "eeg_in_0.1s": 16, "fmri_in_1s": 1,
    }  # fmt: skip
    assert [cases[f"{s}_reconstruction"].metric for s in SIGNALS] == ["bits_per_spike", "r2", "r2", "r2"]


# ---------------------------------------------------------------- planted dynamics
def _planted(x: Array, counts: bool = False, horizon_s: float = 0.0) -> SignalCase:
    """x (2000, N) in three blocks, at 10 Hz."""
    blocks = [dict(zip(SPLITS, np.split(v, (1200, 1500)), strict=True)) for v in (x, np.arange(2000) / 10)]
    modality = "spikes" if counts else "calcium"
    category = "forecasting" if horizon_s else "reconstruction"
    case = SignalCase(Path(), (), "toy", "r", "none", modality, "signal", 10.0, category, horizon_s)  # type: ignore[arg-type]
    object.__setattr__(case, "data", Activity(*blocks, counts, np.ones(x.shape[1], bool)))
    return case


@pytest.fixture
def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows all over the test block, without windows."""
    monkeypatch.setattr(forecasting, "origins", lambda c: forecasting.Origins(np.zeros(1, int), np.arange(20, 480), c.lead, 500))


@pytest.mark.usefixtures("everywhere")
def test_autoregression_finds_a_rotation_that_copies_and_means_miss(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    turn = 0.995 * np.array([[np.cos(0.6), -np.sin(0.6)], [np.sin(0.6), np.cos(0.6)]])
    state, path = np.zeros(2), []
    for _ in range(2000):
        state = turn @ state + 0.1 * rng.normal(size=2)
        path.append(state)
    x = np.array(path) @ rng.normal(size=(2, 5))
    case = _planted((x - x.mean(0)) / x.std(0), horizon_s=0.5)
    values = {name: FORECASTS[name](case, CFG, tmp_path).value for name in FORECASTS}
    seen, ahead = (np.array(path)[1500 + np.arange(20, 480) + k] for k in (-1, case.lead))
    oracle = 1 - np.mean((ahead - seen @ np.linalg.matrix_power(turn, case.lead + 1).T) ** 2) / ahead.var(0).mean()
    assert values["autoregression"] == pytest.approx(oracle, abs=0.04)
    assert values["copy_last"] < 0
    assert values["mean"] < 0.01


@pytest.mark.usefixtures("everywhere")
def test_counts_that_come_back_are_foretold_in_bits_per_spike(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rates = np.exp(np.sin(np.arange(2000)[:, None] * 2 * np.pi / 16 + rng.uniform(0, 6, 8)))
    case = _planted(rng.poisson(rates).astype(float), counts=True, horizon_s=0.4)
    values = {name: FORECASTS[name](case, CFG, tmp_path).value for name in FORECASTS}
    assert values["autoregression"] > 0.1
    assert values["autoregression"] > values["copy_last"] + 0.1
    assert values["mean"] == pytest.approx(0, abs=0.02)


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("together", [False, True])
def test_autoregression_agrees_with_scikit_learn(together: bool) -> None:
    """Of all orders and penalties, those with the best score, each solved by another implementation."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2000, 3)).cumsum(0) * 0.05
    case = _planted(x - x[:1200].mean(0), horizon_s=0.2)
    _, _, guess = forecasting._solved(case, 4, together)
    at = {split: forecasting._fitted_rows(case, split) for split in ("train", "validation")}

    def past(split: str, rows: Array) -> Array:
        padded = np.pad(case.data.x[split] - case.data.x["train"].mean(0), ((4, 0), (0, 0)))
        return np.stack([padded[rows + k] for k in range(4)], 1)

    train, ahead = past("train", at["train"]), past("validation", at["validation"])
    y = case.data.x["train"][at["train"] + case.lead]
    pick = [slice(None)] if together else [slice(c, c + 1) for c in range(3)]
    unit = (train**2).sum() / (train.shape[1] * train.shape[2])

    def twin(alpha: float) -> Array:
        fits = [Ridge(alpha=alpha * unit, fit_intercept=False).fit(_flat(train[..., c]), (y - y.mean(0))[:, c]) for c in pick]
        return np.column_stack([f.predict(_flat(ahead[..., c])) for f, c in zip(fits, pick, strict=True)]) + y.mean(0)

    truth = case.data.x["validation"][at["validation"] + case.lead]
    best = max((twin(alpha) for alpha in forecasting.ALPHAS), key=lambda said: case.score(truth, said))
    np.testing.assert_allclose(guess("validation", at["validation"]), best, rtol=1e-5, atol=1e-7)


def _flat(x: Array) -> Array:
    return x.reshape(len(x), -1)


@pytest.mark.parametrize("counts", [False, True])
@pytest.mark.parametrize("name", RECONSTRUCTIONS)
def test_channels_are_found_again_in_the_others(name: str, counts: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    latent = np.sin(np.arange(2000)[:, None] * np.array([0.11, 0.27]))
    mixed = latent @ rng.normal(size=(2, 16))
    x = rng.poisson(np.exp(mixed)).astype(float) if counts else mixed / mixed.std(0) + 0.3 * rng.normal(size=mixed.shape)
    case = _planted(x, counts)
    said = RECONSTRUCTIONS[name](case, CFG, tmp_path)
    assert said.y_true.shape == said.y_pred.shape == (500, 4)
    assert said.value > (0.1 if counts else 0.6)
    assert (said.metric, said.method) == ("bits_per_spike" if counts else "r2", name)


@pytest.mark.parametrize("name", RECONSTRUCTIONS)
def test_what_is_held_out_is_not_looked_at(name: str, tmp_path: Path) -> None:
    """Whatever the held-out channels of the test block hold, the answer is the same."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2000, 2)) @ rng.normal(size=(2, 8)) + 0.3 * rng.normal(size=(2000, 8))
    held = held_out(_planted(x), CFG)
    other = x.copy()
    other[1500:, held] += 5 * rng.normal(size=(500, held.sum()))
    cfg = dataclasses.replace(CFG, rates=RatesConfig(updates=2, d_model=16, segment=16, batch_size=4))
    said, blind = (RECONSTRUCTIONS[name](_planted(v), cfg, tmp_path / str(i)) for i, v in enumerate((x, other)))
    assert not np.allclose(said.y_true, blind.y_true)
    np.testing.assert_array_equal(said.y_pred, blind.y_pred)


def test_features_lack_the_channels_that_are_targets() -> None:
    case = _planted(np.random.default_rng(0).normal(size=(2000, 8)))
    data, features = targets(case, CFG)
    held = held_out(case, CFG)
    assert held.sum() == 2
    np.testing.assert_array_equal(features["test"], case.data.x["test"][:, ~held])
    np.testing.assert_array_equal(data.y["test"][data.known["test"]], case.data.x["test"][:, held])


def test_signals_with_too_little_in_them_are_left_out_by_reason() -> None:
    still = _planted(np.random.default_rng(0).normal(size=(2000, 8)))
    object.__setattr__(still, "data", dataclasses.replace(still.data, live=np.arange(8) < 3))
    assert why_unasked(still, "ridge") == "3 of its channels vary in every block, and 4 are needed"
    assert "not a population" in why_unasked(dataclasses.replace(still, modality="eeg"), "lfads")


# ---------------------------------------------------------------- the model
@pytest.mark.parametrize("signal", SIGNALS)
def test_the_model_answers_the_same_rows_as_the_baselines(
    signal: str, cases: dict[str, SignalCase], model: NeuroFMx, tmp_path: Path
) -> None:
    forecast, reconstruct = cases[f"{signal}_in_1s"], cases[f"{signal}_reconstruction"]
    copied, found = FORECASTS["copy_last"](forecast, CFG, tmp_path), RECONSTRUCTIONS["ridge"](reconstruct, CFG, tmp_path)
    pairs = [
        (copied, model_forecast(model, forecast, seed=3)),
        (copied, probe_forecasts(model, [forecast], seed=3)[0]),
        (found, model_reconstruction(model, reconstruct, CFG, seed=3)),
        (found, probe_reconstruction(model, reconstruct, CFG, seed=3)),
    ]
    for baseline, ours in pairs:
        np.testing.assert_array_equal(ours.y_true, baseline.y_true)
        np.testing.assert_array_equal(ours.times, baseline.times)
        assert ours.y_pred.shape == ours.y_true.shape
        assert np.isfinite(ours.y_pred).all()
        assert (ours.family, ours.seed, ours.case, ours.metric) == ("neurofmx", 3, baseline.case, baseline.metric)
        assert signal != "spikes" or (ours.y_pred > 0).all()


@pytest.mark.parametrize("signal", ["spikes", "eeg"])
def test_values_of_a_batch_lie_at_the_samples_of_the_block(signal: str, cases: dict[str, SignalCase], model: NeuroFMx) -> None:
    """Patches of what is measured, brought back and stitched, are the block itself."""
    case = cases[f"{signal}_reconstruction"]
    pieces = []
    for batch, starts in signal_batches(model, case):
        stream = batch.streams[signal]
        values = stream.values if stream.counts is None else (stream.counts + 1e-9).log()
        tokenizer = model.tokenizer(case.modality)
        back = in_samples(tokenizer.cut(stream, values), case)
        pieces += [(start, own.reshape(-1, own.shape[-1])) for start, own in zip(starts, back, strict=True)]
    np.testing.assert_allclose(stitched(pieces, len(case.data.times["test"])), case.data.x["test"], atol=1e-4)


@pytest.mark.parametrize(("module", "answer"), [(reconstruction, model_reconstruction), (signal_probes, probe_reconstruction)])
def test_the_model_does_not_see_the_channels_it_reconstructs(
    module: ModuleType, answer: Callable[..., Prediction], cases: dict[str, SignalCase], model: NeuroFMx, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = cases["spikes_reconstruction"]
    before = answer(model, case, CFG, seed=0).y_pred
    held = torch.from_numpy(held_out(case, CFG))
    monkeypatch.setattr(module, "signal_batches", _changed("spikes", lambda values, stream: values + 3.0 * held))
    np.testing.assert_array_equal(answer(model, case, CFG, seed=0).y_pred, before)
    monkeypatch.setattr(module, "signal_batches", _changed("spikes", lambda values, stream: values + 3.0 * ~held))
    assert not np.allclose(answer(model, case, CFG, seed=0).y_pred, before)


def _probed(model: NeuroFMx, case: SignalCase, seed: int) -> Prediction:
    return probe_forecasts(model, [case], seed)[0]


@pytest.mark.parametrize(("module", "answer"), [(forecasting, model_forecast), (signal_probes, _probed)])
@pytest.mark.parametrize("signal", ["calcium", "eeg"])
def test_the_model_does_not_see_the_future_it_forecasts(
    signal: str,
    module: ModuleType,
    answer: Callable[..., Prediction],
    cases: dict[str, SignalCase],
    model: NeuroFMx,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = cases[f"{signal}_in_0.1s"]
    monkeypatch.setattr(forecasting, "MOST_ROWS", len(origins(case).windows))
    monkeypatch.setattr(signal_probes, "MOST_ROWS", {split: len(origins(case, split).windows) for split in SPLITS})
    (after,) = origins(case).after
    before = answer(model, case, seed=0).y_pred

    def with_noise(since: float) -> Callable[..., Iterator[tuple[Batch, Array]]]:
        return _changed(signal, lambda values, stream: values + 3.0 * (torch.arange(values.shape[1]) >= since)[:, None])

    monkeypatch.setattr(module, "signal_batches", with_noise(after))
    np.testing.assert_array_equal(answer(model, case, seed=0).y_pred, before)
    monkeypatch.setattr(module, "signal_batches", with_noise(after - 4 * case.patch))
    assert not np.allclose(answer(model, case, seed=0).y_pred, before)


def _changed(signal: str, change: Callable[..., torch.Tensor]) -> Callable[..., Iterator[tuple[Batch, Array]]]:
    def batches(*args: Any) -> Iterator[tuple[Batch, Array]]:
        for batch, starts in signal_batches(*args):
            stream = batch.streams[signal]
            changed = dataclasses.replace(stream, values=change(stream.values, stream))
            yield dataclasses.replace(batch, streams={signal: changed}), starts

    return batches


@pytest.mark.parametrize("signal", ["calcium", "spikes"])
def test_probes_of_all_horizons_are_those_of_each(signal: str, cases: dict[str, SignalCase], model: NeuroFMx) -> None:
    horizons = [cases[f"{signal}_in_{h}s"] for h in ("0.1", "1")]
    together = probe_forecasts(model, horizons, seed=0)
    for case, said in zip(horizons, together, strict=True):
        np.testing.assert_allclose(said.y_pred, _probed(model, case, 0).y_pred, atol=1e-9)


@pytest.mark.parametrize(
    ("objectives", "heads"), [({"behaviour": 1.0, "masked": 0.0}, 0), ({"masked": 0.1}, 1), ({"masked": 1, "forecast": 1}, 3)]
)
def test_heads_answer_what_they_were_taught(
    objectives: dict[str, float], heads: int, shards: Path, cases: dict[str, SignalCase], model: NeuroFMx, tmp_path: Path
) -> None:
    save_model(tmp_path / "pretrained", model)
    (tmp_path / "pretrained" / "job.json").write_text(json.dumps({"config": {"objectives": objectives}}))
    only = [cases[name] for name in ("spikes_in_0.1s", "spikes_in_1s", "spikes_reconstruction")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(signal_answers, "find_signals", lambda *args: only)
        answer = partial(signal_answers.answer_signals, SignalsConfig(), tmp_path / "pretrained", [shards], [], tmp_path)
        report = answer()
        assert answer().metrics == report.metrics  # a second time nothing is missing
    said = load_predictions(tmp_path / "predictions")
    assert sorted(p.case for p in said if p.method == "linear_probe") == sorted(case.key for case in only)
    assert len(said) == 3 + heads


def test_a_horizon_that_the_model_was_not_taught_is_refused(cases: dict[str, SignalCase], model: NeuroFMx) -> None:
    with pytest.raises(ValueError, match="not by 7"):
        model_forecast(model, dataclasses.replace(cases["spikes_in_1s"], horizon_s=7.0), seed=0)
