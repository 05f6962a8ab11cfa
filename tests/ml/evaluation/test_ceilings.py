"""Noise ceilings of responses whose share of signal was planted."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from neurofm_ml import metrics
from neurofm_ml.evaluation.scoring.repeats import ceilings
from neurofm_ml.evaluation.statistics.ceilings import noise_ceiling, not_above_ceiling, reliability, spearman_brown
from neurofm_ml.types import Array


def responses(share: float, n_trials: int, n_times: int = 400, n_columns: int = 2, seed: int = 0) -> tuple[Array, Array]:
    """Signal (T, K) of unit variance and trials (R, T, K) of which it is `share` of the variance."""
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=(n_times, n_columns))
    signal = (signal - signal.mean(0)) / signal.std(0)
    return signal, signal + rng.normal(size=(n_trials, n_times, n_columns)) * np.sqrt(1 / share - 1)


def test_a_perfect_model_reaches_the_ceiling_of_each_score() -> None:
    # The trap: with two thirds of signal a perfect model correlates with sqrt(2/3) = .816, not .667.
    signal, trials = responses(2 / 3, 12, 5000)
    for of, target in (("trial", trials[0]), ("mean", trials.mean(0))):
        assert noise_ceiling(trials, "r2", of).value == pytest.approx(metrics.r2(target, signal), abs=0.02)  # type: ignore[arg-type]
        assert noise_ceiling(trials, "pearson", of).value == pytest.approx(metrics.pearson(target, signal), abs=0.02)  # type: ignore[arg-type]
    assert noise_ceiling(trials, "pearson").value == pytest.approx(0.816, abs=0.01)
    assert noise_ceiling(trials, "r2").value == pytest.approx(0.667, abs=0.01)
    assert noise_ceiling(trials, "r2", "mean").value == pytest.approx(24 / 25, abs=0.01)  # Spearman and Brown: 12 * 2/3 / (1 + 11 * 2/3)


def test_reliability_agrees_with_correlating_halves_one_by_one() -> None:
    _, trials = responses(0.4, 7)
    orders = np.random.default_rng(3).permuted(np.tile(np.arange(7), (200, 1)), axis=1)
    halves = [(trials[o[:3]].mean(0), trials[o[3:6]].mean(0)) for o in orders]
    r = np.array([[np.corrcoef(a[:, k], b[:, k])[0, 1] for k in range(2)] for a, b in halves]).mean(0)
    np.testing.assert_allclose(reliability(trials, seed=3), r / (3 - 2 * r), rtol=1e-9)
    np.testing.assert_allclose(spearman_brown(spearman_brown(r, 1 / 3), 3), r)


@pytest.mark.parametrize(("share", "n_trials"), [(0.5, 5), (0.2, 12)])
def test_intervals_cover_the_planted_share(share: float, n_trials: int) -> None:
    found = [noise_ceiling(responses(share, n_trials, 200, seed=seed)[1], "r2") for seed in range(80)]
    assert np.mean([c.value for c in found]) == pytest.approx(share, abs=0.02)
    assert np.mean([c.low <= share <= c.high for c in found]) >= 0.88


def test_noise_alone_has_a_ceiling_of_nothing() -> None:
    noise = np.random.default_rng(0).normal(size=(10, 500, 1))
    for metric in ("r2", "pearson"):
        found = noise_ceiling(noise, metric)
        assert found.low == 0
        assert found.value < 0.15


@pytest.mark.parametrize(
    ("trials", "match"),
    [(np.ones((2, 50, 1)), "there are 2 trials"), (np.ones((4, 50, 1)), "does not vary over time")],
)
def test_responses_without_a_ceiling_are_refused(trials: Array, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        noise_ceiling(trials, "r2")


@pytest.mark.parametrize(
    ("changes", "passed"),
    [
        ({"noise_ceiling": np.nan}, True),
        ({"noise_ceiling": 0.9}, True),
        ({"noise_ceiling": 0.78}, True),  # above, but not surely
        ({"noise_ceiling": 2 / 3}, False),  # what a ceiling without its square root makes of a good model
    ],
)
def test_a_score_above_its_ceiling_fails(changes: dict[str, Any], passed: bool) -> None:
    row = {"dataset": "toy", "recording": "r1", "task": "velocity", "method": "ours", "value": 0.8, "ci_low": 0.76}
    table = pd.DataFrame([{**row, "noise_ceiling": 0.95}, {**row, **changes}])
    check = not_above_ceiling(table)
    assert check.passed == passed
    assert passed or "toy/r1/velocity ours: 0.800 above 0.667" in check.note
    assert not_above_ceiling(table.iloc[:0]).passed


# ---------------------------------------------------------------- stimuli that repeat
def listener(name: str, story: Array, response: Array, **task: str) -> Any:
    """Stands for an encoding case of a recording."""
    about = {"name": "story", "category": "encoding", "metric": "pearson", **task}
    data = SimpleNamespace(
        x={"test": story}, y={"test": response}, times={"test": np.arange(len(story))}, known={"test": np.isfinite(response).all(1)}
    )
    return SimpleNamespace(dataset="toy", key=("toy", name, "story"), task=SimpleNamespace(**about), data=data)


def test_whoever_hears_the_same_story_has_the_ceiling_of_what_they_share() -> None:
    _, heard = responses(0.4, 8, 2000)
    heard[2, :100] = np.nan
    rng = np.random.default_rng(1)
    one, other, third = rng.normal(size=(3, 2000, 1))
    alike = [listener(f"r{k}", one, gain * y) for k, (y, gain) in enumerate(zip(heard, rng.lognormal(0, 0.7, 8), strict=True))]
    few = [listener(f"s{k}", other, y) for k, y in enumerate(heard[:2])]
    others = [listener(f"t{k}", one, y, category="decoding") for k, y in enumerate(heard[:3])]
    others += [listener(f"u{k}", one, y, metric="mae") for k, y in enumerate(heard[:3])]
    others += [listener(f"v{k}", third, rng.normal(size=(2000, 2))) for k in range(5)]  # nothing in common
    found = ceilings([*alike, *few, *others])
    assert set(found) == {case.key for case in alike}
    assert list(found.values()) == pytest.approx([np.sqrt(0.4)] * len(alike), abs=0.02)
