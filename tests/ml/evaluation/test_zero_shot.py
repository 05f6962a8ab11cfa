"""Zero-shot: nothing of the target's labels is used; planted maps and prototypes are found in places never fitted to; retrieval."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from planted_places import labels, series

from neurofm_ml.evaluation.scoring.scores import read_scores
from neurofm_ml.evaluation.transfer.examples import Examples
from neurofm_ml.evaluation.transfer.places import Place, matrix
from neurofm_ml.evaluation.transfer.zero_shot import METHODS, probe, prototype, publish, retrieved, rows_of, said_of
from neurofm_ml.presets import ZeroShotConfig
from neurofm_ml.types import Array

CFG = ZeroShotConfig(seed=0, size="tiny", n_boot=100, n_perm=100)
SHARED = np.random.default_rng(0).normal(size=(6, 2))
IDENTITY = {"run": "tiny-0", "fingerprint": "abc", "size": "tiny", "seed": 0}


def sessions(make: Callable[..., Examples], *args: object) -> list[Examples]:
    return [make(*args, k, recording=f"r{k}", session=f"s{k}") for k in range(3)]


@pytest.mark.parametrize("standardise", ["own", "source"])
@pytest.mark.parametrize(("make", "args"), [(labels, (2.0,)), (series, (SHARED, 0.3))])
def test_shuffling_the_labels_of_the_target_changes_nothing_that_is_fitted(make, args: tuple, standardise: str) -> None:
    cfg = replace(CFG, standardise=standardise)
    parts = sessions(make, *args)
    spoiled = replace(parts[0], y=np.random.default_rng(1).permutation(parts[0].y))
    whole, without = (Place.of("0", part) for part in (parts[0], spoiled))
    others = [Place.of(str(k), part) for k, part in enumerate(parts[1:], 1)]
    for name, fit in METHODS.items():
        if name == "probe" or make is labels:
            assert np.array_equal(said_of(fit(others), whole, standardise), said_of(fit(others), without, standardise))
    fits = ("method", "trained_on", "parameters", "k_shot", "n")
    true, false = (
        [row for row in rows_of([part, *parts[1:]], "session", cfg, {}) if row["recording"] == "r0"] for part in (parts[0], spoiled)
    )
    assert [[row[name] for name in fits] for row in true] == [[row[name] for name in fits] for row in false]
    assert true[0]["value"] > false[0]["value"] + 0.2


def test_shuffling_the_labels_of_a_source_does(tmp_path: Path) -> None:
    parts = sessions(labels, 2.0)
    target, others = Place.of("0", parts[0]), [Place.of(str(k), part) for k, part in enumerate(parts[1:], 1)]
    shuffled = [Place.of("x", replace(parts[1], y=1 - parts[1].y)), others[1]]
    for fit in METHODS.values():
        assert not np.array_equal(said_of(fit(others), target, "own"), said_of(fit(shuffled), target, "own"))


def test_a_class_that_no_source_has_is_not_said(tmp_path: Path) -> None:
    task = replace(labels(2.0, 0).task, classes=("a", "b", "c"), metric="balanced_accuracy")
    source, target = labels(2.0, 1, task=task), labels(2.0, 2, task=task)
    said = said_of(prototype([Place.of("s", source)]), Place.of("t", replace(target, y=(target.y + 1) % 3)), "own")
    assert (said.argmax(1) < 2).all()
    assert np.isfinite(said).all()


def test_the_same_recordings_under_another_name_are_no_source() -> None:
    """A slice of the scans of a person is not another person."""
    whole, part, other = (labels(2.0, k, dataset=d, recording=r) for k, (d, r) in enumerate((("w", "run1"), ("p", "run1"), ("o", "run9"))))
    rows = list(rows_of([whole, part, other], "dataset", CFG, {}))
    assert {(row["dataset"], row["trained_on"]) for row in rows} == {("w", "o"), ("p", "o"), ("o", "p, w")}
    places = [Place.of(name, x) for name, x in zip("wpo", (whole, part, other), strict=True)]
    cells = {(row["source"], row["target"]) for row in matrix(places, "own", 9, 0)}
    assert cells == {(s, t) for s in "wpo" for t in "wpo"} - {("w", "p"), ("p", "w")}


def test_a_shared_map_and_shared_prototypes_are_found_where_nothing_was_fitted(tmp_path: Path) -> None:
    left_out: dict[str, str] = {}
    rows = [
        *rows_of(sessions(series, SHARED, 0.3), "session", CFG, left_out),
        *rows_of(sessions(labels, 3.0), "session", CFG, left_out),
    ]
    report = publish([{**IDENTITY, **row} for row in rows], left_out, tmp_path)
    table = read_scores(tmp_path / "scores.parquet")
    assert table.groupby("method").size().to_dict() == {"zero_shot_probe_across_sessions": 6, "zero_shot_prototype_across_sessions": 3}
    assert (table.value[table.metric == "r2"] > 0.85).all()
    assert (table.value[table.metric == "auroc"] > 0.85).all()
    assert ((table.p < 0.05) & (table.k_shot == 0)).all()
    assert (table.control[table.metric == "r2"] < 0.1).all()
    assert table.trained_on.iloc[0] == "toy/s1, toy/s2"
    assert report.checks[0].passed
    assert left_out == {}


def test_prototypes_are_nearest_class_means() -> None:
    parts = [Place.of(str(k), labels(2.0, k, d=3)) for k in range(3)]
    train = [(p.splits["train"].x - p.scale[0]) / p.scale[1] for p in parts[1:]]
    y = np.concatenate([p.splits["train"].y[:, 0] for p in parts[1:]])
    means = np.stack([np.concatenate(train)[y == c].mean(0) for c in (0, 1)])
    x = (parts[0].splits["test"].x - parts[0].scale[0]) / parts[0].scale[1] - means.mean(0)
    directions = means - means.mean(0)
    cosine = [[row @ d / np.linalg.norm(row) / np.linalg.norm(d) for d in directions] for row in x]
    assert np.allclose(said_of(prototype(parts[1:]), parts[0], "own"), cosine)


def test_a_place_alone_has_no_source_and_a_short_one_is_left_out_by_name() -> None:
    left_out: dict[str, str] = {}
    assert list(rows_of([labels(1.0, 0)], "session", CFG, left_out)) == []
    parts = sessions(labels, 2.0)
    test = np.flatnonzero(parts[0].about.split == "test")
    few = np.concatenate([np.flatnonzero(parts[0].about.split != "test"), test[:1], test[parts[0].y[test, 0] != parts[0].y[test[0], 0]]])
    rows = list(rows_of([parts[0].where(few), *parts[1:]], "session", CFG, left_out))
    assert left_out == {"session toy/s0": "fewer than two test units of a class"}
    assert {row["recording"] for row in rows} == {"r1", "r2"}


def test_what_pretraining_learned_from_is_not_called_zero_shot() -> None:
    rows = list(rows_of(sessions(series, SHARED, 0.3), "session", CFG, {}, {"toy/velocity", "other/state"}))
    assert {row["method"] for row in rows} == {"seen_probe_across_sessions"}
    assert all(np.isnan(row["k_shot"]) for row in rows)
    assert {row["method"] for row in rows_of(sessions(series, SHARED, 0.3), "session", CFG, {}, {"toy/state", "other/velocity"})} == {
        "zero_shot_probe_across_sessions"
    }


# ---------------------------------------------------------------- retrieval
def moments(shared: float, n: int = 60) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(n, 5))
    return tuple(shared * latent + rng.normal(size=(n, 5)) for _ in range(2))  # type: ignore[return-value]


def test_moments_are_found_as_a_loop_finds_them() -> None:
    a, b = moments(2.0)
    near = (a / np.linalg.norm(a, axis=1)[:, None]) @ (b / np.linalg.norm(b, axis=1)[:, None]).T
    for k in (1, 5):
        for shift, found in ((0, retrieved(a, b, k)[0]), (6, retrieved(a, b, k)[1])):
            own = [near[i, (i + shift) % 60] for i in range(60)]
            there = np.mean([(near[i] > own[i]).sum() < k for i in range(60)])
            back = np.mean([(near[:, (i + shift) % 60] > own[i]).sum() < k for i in range(60)])
            assert found == pytest.approx((there + back) / 2)


def test_shared_moments_are_found_and_unrelated_ones_at_chance() -> None:
    found, none = retrieved(*moments(5.0), 1), retrieved(*moments(0.0), 1)
    assert found[0] > 0.8
    assert found[1:].max() < 0.2
    assert none[0] < 0.1
    assert none[1:].mean() == pytest.approx(1 / 60, abs=0.01)
    assert retrieved(np.ones((20, 3)), np.ones((20, 3)), 1)[0] == 0


def test_probe_of_sources_in_other_units_is_of_their_own_scales() -> None:
    parts = [Place.of(str(k), series(SHARED, 0.2, k)) for k in range(3)]
    moved = series(SHARED, 0.2, 1)
    moved = Place.of("1", replace(moved, x=100 * moved.x - 3))
    assert np.allclose(said_of(probe([moved, parts[2]]), parts[0], "own"), said_of(probe(parts[1:]), parts[0], "own"))
