"""Identity, similarity and people left out: planted truths, statsmodels-free twins by least squares, and controls at chance."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from probe_features import AGE, STATE, write_features
from scipy.stats import spearmanr

from neurofm_ml.evaluation.features.features import Features
from neurofm_ml.evaluation.features.identity import earlier, identification, label_columns, variance_shares
from neurofm_ml.evaluation.features.leave_out import Labelled, left_out_rows
from neurofm_ml.evaluation.features.representation import IDENTITY, LEFT_OUT, RSA, VARIANCE, representation
from neurofm_ml.evaluation.features.rsa import correlation_distance, distance, similarity, stretches
from neurofm_ml.knowledge.cards import TaskSpec
from neurofm_ml.presets import RepresentationConfig
from neurofm_ml.types import Array

DX = TaskSpec(name="dx", target="subject.diagnosis", inputs=("eeg",), classes=("no", "yes"), metric="auroc")


def _people(n_people: int = 6, per: int = 40, sessions: int = 2) -> pd.DataFrame:
    """Windows of people with as many recordings as sessions; a state that changes every five windows."""
    person = np.repeat(np.arange(n_people), per * sessions)
    session = np.tile(np.repeat(np.arange(sessions), per), n_people)
    start = np.tile(np.arange(per), n_people * sessions).astype(float)
    names = [f"p{p}" for p in person]
    table = {
        "subject": names,
        "session": [f"s{s}" for s in session],
        "recording": [f"p{p}_{s}" for p, s in zip(person, session, strict=True)],
    }
    state = (start // 5 + person) % 2
    split = np.where(start < 24, "train", np.where(start < 30, "validation", "test"))
    return pd.DataFrame(
        {**table, "start": start, "end": start + 1, "state": state, "split": split, "dx": person % 2.0, "key": np.arange(len(person))}
    )


def _planted(windows: pd.DataFrame, subject: float, session: float, state: float, seed: int = 0) -> Array:
    """(n, 12) with the given variances per feature, and noise of variance 1."""
    rng = np.random.default_rng(seed)

    def effect(names: pd.Series, variance: float) -> Array:
        _, place = np.unique(names, return_inverse=True)
        levels = rng.normal(size=(place.max() + 1, 12))
        return np.asarray(np.sqrt(variance) * levels[place])

    return (
        effect(windows.subject, subject)
        + effect(windows.recording, session)
        + effect(windows.state, 2 * state)
        + rng.normal(size=(len(windows), 12))
    )


# ---------------------------------------------------------------- variance
def test_planted_shares_are_found() -> None:
    """Of two, one, one and one parts of variance."""
    windows = _people(12, 40, 4)
    x = _planted(windows, 2.0, 1.0, 1.0)
    shares = {s.factor: s for s in variance_shares(x, windows, label_columns(windows.state.to_numpy(), STATE), False, 99, 0)}
    assert shares["subject"].adjusted == pytest.approx(0.4, abs=0.1)
    assert shares["session"].share == pytest.approx(0.2, abs=0.08)
    assert shares["label"].adjusted == pytest.approx(0.2, abs=0.12)
    assert {s.p for s in shares.values()} == {0.01}


def test_shares_are_those_of_nested_least_squares() -> None:
    windows = _people()
    x, label = _planted(windows, 1.0, 0.5, 0.5), label_columns(windows.state.to_numpy(), STATE)
    x = x - x.mean(0)
    designs = [pd.get_dummies(windows[name]).to_numpy(float) for name in ("subject", "recording")]
    designs.append(np.concatenate([designs[-1], label], axis=1))
    explained = [((d @ np.linalg.lstsq(d, x, rcond=None)[0]) ** 2).sum() / (x**2).sum() for d in designs]
    found = [s.share for s in variance_shares(x, windows, label, False, 3, 0)]
    np.testing.assert_allclose(found, np.diff([0.0, *explained]), atol=1e-9)


def test_without_identity_no_share_is_found_however_slow_the_noise(make_series) -> None:
    """Drift within recordings makes windows of one recording alike; recordings are what is exchanged."""
    windows, ps = _people(5, 30, 3), []
    for seed in range(20):
        x = np.concatenate([make_series(np.random.default_rng([seed, k]), 0.95, 30, 8) for k in range(15)])
        shares = variance_shares(x, windows, label_columns(windows.state.to_numpy(), STATE), False, 99, seed)
        ps.append([s.p for s in shares if s.factor != "session"])
    assert (np.array(ps) < 0.05).mean(0).max() <= 0.2
    assert [(s.factor, s.exchanged) for s in shares] == [("subject", "recordings"), ("session", "quarters"), ("label", "stretches")]


def test_a_label_of_people_is_exchanged_between_people() -> None:
    windows, ps = _people(12, 10, 1), []
    label = label_columns(windows.dx.to_numpy(), DX)
    for seed in range(20):
        person = np.random.default_rng(seed).normal(size=(12, 12))[windows.subject.factorize()[0]]
        found = [variance_shares(x, windows, label, True, 99, 0)[1] for x in (person, person + 3 * label[:, :1])]
        ps.append([s.p for s in found])
        assert {s.exchanged for s in found} == {"subjects"}
    blind, told = (np.array(ps) < 0.05).mean(0)
    assert blind <= 0.15
    assert told > 0.9


# ---------------------------------------------------------------- identification
def test_people_are_told_from_other_recordings_of_them() -> None:
    windows = _people(6, 20, 2)
    assert windows[earlier(windows)].session.unique().tolist() == ["s0"]
    assert identification(_planted(windows, 4.0, 0.1, 0.0), windows) == (pytest.approx(1.0, abs=0.05), 6)
    accuracy, people = identification(_planted(windows, 0.0, 4.0, 0.0), windows) or (0.0, 0)
    assert accuracy < 0.6
    assert people == 6


def test_windows_that_overlap_what_was_learned_are_not_asked() -> None:
    windows = _people(2, 20, 1).assign(end=lambda t: t.start + 4)
    asked = windows[~earlier(windows)]
    assert (windows.end[earlier(windows)].max(), asked.start.min()) == (15.0, 12.0)
    one = identification(_planted(windows, 9.0, 0, 0), windows)
    late = windows[(windows.start < 12) | (windows.start >= 15)].reset_index(drop=True)
    assert one == identification(_planted(windows, 9.0, 0, 0)[(windows.start < 12) | (windows.start >= 15)], late) != None  # noqa: E711


def test_one_person_cannot_be_told_from_others() -> None:
    windows = _people(1, 20, 1)
    assert identification(_planted(windows, 1.0, 0, 0), windows) is None


# ---------------------------------------------------------------- similarity
def test_similarity_is_the_rank_correlation_of_the_pairs() -> None:
    rng = np.random.default_rng(0)
    a, b = correlation_distance(rng.normal(size=(14, 5))), distance(rng.normal(size=(14, 2)))
    upper = np.triu_indices(14, 1)
    assert similarity(a, b, 9, 0).rho == pytest.approx(spearmanr(a[upper], b[upper]).statistic)
    assert similarity(a, a, 99, 0)[:2] == (pytest.approx(1.0), 0.01)


def test_distances_between_patterns_are_those_of_scipy() -> None:
    from scipy.spatial.distance import pdist, squareform

    x = np.random.default_rng(0).normal(size=(9, 6))
    np.testing.assert_allclose(correlation_distance(x), squareform(pdist(x - x.mean(0), "correlation")), atol=1e-12)
    np.testing.assert_allclose(distance(x), squareform(pdist(x / x.std(0))), atol=1e-6)


def test_slow_series_that_have_nothing_to_do_with_each_other_are_not_alike(make_series) -> None:
    """Exchanged as if they were independent, they often are."""
    ps = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        a, b = (distance(stretches(make_series(rng, 0.97, 300, k))) for k in (6, 2))
        ps.append([similarity(a, b, 99, 0, in_time=in_time).p for in_time in (True, False)])
    rolled, exchanged = (np.array(ps) < 0.05).mean(0)
    assert rolled <= 0.15 < exchanged


def test_stretches_are_means_of_equal_parts() -> None:
    values = np.arange(20.0)[:, None]
    np.testing.assert_array_equal(stretches(values), [[2.0], [7.0], [12.0], [17.0]])
    assert len(stretches(np.zeros((4, 2)))) == 0


# ---------------------------------------------------------------- left out
def _left_out(x: Array, windows: pd.DataFrame, task: TaskSpec, by: str = "subject") -> dict[str, float]:
    table = windows.assign(dataset="toy")
    return {row["group"]: row["value"] for row in left_out_rows(Labelled.of(task, x, table), by, 50, 0)}


def test_people_left_out_are_read_where_the_label_is_common_to_all() -> None:
    windows = _people(16, 12, 1).assign(split=lambda t: np.where(t.subject.str[1:].astype(int) % 4 == 0, "validation", "train"))
    x = np.random.default_rng(0).normal(size=(len(windows), 10))
    told = x + windows.dx.to_numpy()[:, None] * np.linspace(0, 1, 10)
    assert _left_out(told, windows, DX)["all"] > 0.9


def test_noise_is_at_chance_and_not_below_it() -> None:
    """Where the rest of the people is unbalanced by the one left out, areas fall to 0."""
    windows = _people(16, 12, 1).assign(split=lambda t: np.where(t.subject.str[1:].astype(int) % 4 == 0, "validation", "train"))
    values = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        person = rng.normal(size=(16, 10))[windows.subject.factorize()[0]]
        values.append(_left_out(person + rng.normal(size=(len(windows), 10)), windows, DX)["all"])
    assert 0.35 < np.mean(values) < 0.65


def test_each_site_is_left_out() -> None:
    windows = _people(16, 12, 1)
    site = np.array(["a", "b", "c", "d"])[windows.subject.str[1:].astype(int) // 4]
    x = np.random.default_rng(0).normal(size=(len(windows), 10)) + windows.dx.to_numpy()[:, None]
    found = _left_out(x, windows.assign(site=site), DX, "site")
    assert set(found) == {"all", "a", "b", "c", "d"}
    assert min(found.values()) > 0.9
    assert not _left_out(x, windows.assign(site="a"), DX, "site")


# ---------------------------------------------------------------- the tables
@pytest.fixture
def features(tmp_path: Path) -> Path:
    """Two datasets of six people each, which differ in who was recorded and in their state, and age nowhere."""
    for k, name in enumerate(("one", "two")):
        windows = _people(6, 40, 1)
        x = _planted(windows, 3.0, 0.0, 0.5, seed=k)
        age = 20.0 + windows.subject.str[1:].astype(int)
        table = {**windows.drop(columns="key").to_dict("list"), "age": age}
        write_features(tmp_path / "features", name, np.stack([x, x], 1), table, (STATE, AGE, DX))
    return tmp_path / "features"


def test_the_tables_hold_what_was_planted(features: Path, tmp_path: Path) -> None:
    (out := tmp_path / "out").mkdir()
    report = representation(RepresentationConfig(n_perm=39, n_boot=50), features, out)
    tables = {name: pd.read_parquet(out / f"{name}.parquet") for name in ("variance", "identity", "rsa", "left_out")}
    assert [tuple(t) for t in tables.values()] == [VARIANCE, IDENTITY, RSA, LEFT_OUT]
    subject = tables["variance"].query("factor == 'subject'")
    assert subject.adjusted.min() > 0.4
    assert set(tables["identity"].task) == {"state", "dx"}
    assert tables["identity"].identity.min() > 0.9
    assert set(tables["rsa"].other) == {"age", "dx"}
    assert set(tables["left_out"].left_out) == {"subject"}
    assert report.metrics["variance.rows"] == len(tables["variance"])


def test_a_dataset_without_labels_says_whose_it_is_alone(tmp_path: Path) -> None:
    windows = _people(3, 20, 1)
    write_features(
        tmp_path, "plain", _planted(windows, 3.0, 0, 0)[:, None], windows.drop(columns=["key", "state", "dx"]).to_dict("list"), ()
    )
    (out := tmp_path / "out").mkdir()
    representation(RepresentationConfig(n_perm=9, n_boot=50), tmp_path, out)
    assert pd.read_parquet(out / "variance.parquet").factor.tolist() == ["subject"]
    assert not len(pd.read_parquet(out / "left_out.parquet"))
    assert isinstance(Features(tmp_path / "plain").layers, tuple)
