"""The leakage audit: every planted leak is found, what is clean stays clean, and no detector can be left out."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from parcel_shards import write_real
from planted_leaks import CHANGES, Dataset, card, clean, copied, counts, fitted, noisy, thinned

from neurofm_ml.data.scaler import Moments
from neurofm_ml.evaluation.audit import audit, job, standardiser_offsets
from neurofm_ml.evaluation.audit.findings import CLAIMS, Finding
from neurofm_ml.evaluation.audit.people import same_people
from neurofm_ml.evaluation.audit.times import least_gaps, overlaps
from neurofm_ml.evaluation.audit.traces import read_traces
from neurofm_ml.evaluation.audit.units import shared_units
from neurofm_ml.evaluation.audit.used import Used
from neurofm_ml.evaluation.audit.windows import repeated_windows
from neurofm_ml.knowledge.cards import SplitSpec
from neurofm_ml.presets import SPLITS, AuditConfig

SEEDS = range(10)
KINDS = ("block", "recording", "session", "subject", "family", "site")


def leaks(folder: Path, *used: Dataset) -> list[Finding]:
    """What is found in a run on these datasets, with scalers as they should be."""
    shards = [one.write(folder) for one in used]
    modality = next(iter(used[0].card.signals.values())).modality
    return job.find_leaks(AuditConfig(), [Used(path) for path in shards], [fitted(shards, folder, modality)])


# ---------------------------------------------------------------- clean
@pytest.mark.parametrize("kind", KINDS)
def test_a_clean_run_raises_nothing(tmp_path: Path, kind: str) -> None:
    seed = KINDS.index(kind)
    assert leaks(tmp_path, clean("alpha", seed, kind), clean("beta", seed)) == []


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("kind", KINDS)
def test_clean_tables_raise_nothing(kind: str, seed: int) -> None:
    used = [clean("alpha", seed, kind).used(), clean("beta", seed).used()]
    assert [*shared_units(used), *overlaps(used)] == []


def test_what_a_block_split_shares_by_design_is_no_leak() -> None:
    """The same people, sessions and recordings stand in all splits, and in a block split of another card too."""
    a, b = (clean(name, 0, "block", gap_s=0.0) for name in ("alpha", "beta"))
    b = dataclasses.replace(b, card=dataclasses.replace(b.card, source=a.card.source))
    assert shared_units([a.used(), b.used()]) == []


def test_names_mean_nothing_across_sources() -> None:
    a, b = clean("alpha", 0), clean("beta", 0)
    assert set(a.windows.subject) == set(b.windows.subject)
    assert shared_units([a.used(), b.used()]) == []


# ---------------------------------------------------------------- units
def swapped(data: Dataset, seed: int, unit: str, windows: int | None = None) -> tuple[Dataset, str]:
    """One unit of the training split given to some windows, or all, of one test recording."""
    rng = np.random.default_rng(seed)
    who = str(rng.choice(data.rows("train")[unit].unique()))
    test = data.rows("test")
    rows = test.index[test.recording == rng.choice(test.recording.unique())]
    rows = rng.permutation(rows)[:windows]
    changed = data.windows[unit].copy()
    changed[rows] = who
    return data.having(**{unit: changed}), who


@pytest.mark.parametrize("windows", [1, 3, None])
@pytest.mark.parametrize("unit", ["recording", "session", "subject", "family", "site"])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_unit_in_two_splits_is_found(unit: str, windows: int | None, seed: int) -> None:
    data, who = swapped(clean("alpha", seed, unit), seed, unit, windows)
    found = [f for f in shared_units([data.used()]) if f.kind == unit]
    assert [(f.a.split, f.b.split, f.a.who) for f in found] == [("train", "test", who)]


@pytest.mark.parametrize("seed", SEEDS)
def test_twins_are_no_strangers(seed: int) -> None:
    data, who = swapped(clean("alpha", seed, "subject"), seed, "family")
    assert [(f.kind, f.a.who) for f in shared_units([data.used()])] == [("family", who)]


def of_one_source(a: Dataset, b: Dataset) -> Dataset:
    return dataclasses.replace(b, card=dataclasses.replace(b.card, source=a.card.source))


def renamed(b: Dataset, column: str, old: str, new: str) -> Dataset:
    return b.having(**{column: b.windows[column].replace(old, new)})


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("known_by", ["source", "age and sex"])
def test_one_person_in_two_datasets_is_found(seed: int, known_by: str) -> None:
    """s0 is trained on in alpha and tested on in beta."""
    a, b = clean("alpha", seed), clean("beta", seed)
    b = b.having(subject="beta " + b.windows.subject, family=None)
    b = renamed(b, "subject", "beta s9", "s0")
    alike = dataclasses.replace(b, people={**b.people, "r9": a.people["r0"]})
    b = of_one_source(a, b) if known_by == "source" else alike
    found = shared_units([a.used(), b.used()])
    assert [(f.kind, f.a.dataset, f.a.split, f.b.dataset, f.b.split, f.a.who) for f in found] == [
        ("subject", "alpha", "train", "beta", "test", "s0")
    ]


def test_one_person_in_two_sites_of_a_pool_is_found_in_whatever_split() -> None:
    """Each site is left out once, and trained on at other times."""
    a, b = clean("abide_nyu", 0), clean("abide_yale", 0)
    b = renamed(b.having(subject="beta " + b.windows.subject, family=None), "subject", "beta s0", "s0")
    found = shared_units([a.used(), of_one_source(a, b).used()])
    assert ("subject", "abide_nyu", "train", "abide_yale", "train") in [
        (f.kind, f.a.dataset, f.a.split, f.b.dataset, f.b.split) for f in found
    ]


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("unit", "kind"), [("family", "family"), ("site", "site"), ("session", "session")])
def test_a_family_a_site_or_a_session_in_two_datasets_is_found(unit: str, kind: str, seed: int) -> None:
    a, b = clean("alpha", seed), clean("beta", seed, kind)
    b = of_one_source(a, b.having(subject="beta " + b.windows.subject, family="beta " + b.windows.family))
    b = renamed(b, unit, str(b.rows("test")[unit].iloc[0]), str(a.rows("train")[unit].iloc[0]).upper() if unit == "site" else "shared")
    if unit != "site":
        a = renamed(a, unit, str(a.rows("train")[unit].iloc[0]), "shared")
    if unit == "session":
        b = renamed(b, "subject", str(b.rows("test").subject.iloc[0]), str(a.rows("train").subject.iloc[0]))
    assert {(f.kind, f.a.dataset, f.b.dataset) for f in shared_units([a.used(), b.used()])} == {(unit, "alpha", "beta")}


# ---------------------------------------------------------------- times
def test_least_gaps_against_every_pair() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        (start_a, end_a), (start_b, end_b) = (
            (s, s + rng.uniform(0, 3, len(s))) for s in (rng.uniform(0, 20, n) for n in rng.integers(1, 6, 2))
        )
        pairs = np.maximum(start_a[:, None] - end_b, start_b - end_a[:, None])
        gaps, nearest = least_gaps(start_a, end_a, start_b, end_b)
        assert ((gaps < 0) == (pairs.min(axis=0) < 0)).all()
        assert np.allclose(gaps[gaps >= 0], pairs.min(axis=0)[gaps >= 0])
        assert np.allclose(pairs[nearest, np.arange(len(gaps))][gaps > 0], gaps[gaps > 0])


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("overlap_s", [-0.9, 0.01, 0.5, 1.9])
def test_windows_that_overlap_or_are_too_close_are_found(overlap_s: float, seed: int) -> None:
    """Test windows follow validation windows at once; the card promises a second."""
    data = clean("alpha", seed, "block", gap_s=0.0)
    rows = data.windows
    row = int(np.random.default_rng(seed).choice(rows.index[rows.split == "test"]))
    last = rows[(rows.recording == rows.recording[row]) & (rows.split == "validation")].end.max()
    moved = rows.start.where(rows.index != row, last - overlap_s)
    data = data.having(start=moved, end=moved + 2)
    data = dataclasses.replace(data, card=dataclasses.replace(data.card, split=SplitSpec(gap_s=1.0 if overlap_s < 0 else 0.0)))
    found = [f for f in overlaps([data.used()]) if f.b.recording == rows.recording[row] and f.a.split == "validation"]
    assert [(f.kind, f.b.window, round(f.value, 6)) for f in found] == [("time", rows.key[row], -overlap_s)]


@pytest.mark.parametrize("seed", SEEDS)
def test_windows_divided_at_random_are_found(seed: int) -> None:
    data = clean("alpha", seed, "recording")
    random = np.random.default_rng(seed).choice(SPLITS, len(data.windows))
    assert {f.kind for f in (*overlaps([data.having(split=random).used()]), *shared_units([data.having(split=random).used()]))} == {
        "time",
        "recording",
    }


@pytest.mark.parametrize("seed", SEEDS)
def test_two_cards_of_the_same_files_share_their_time(seed: int) -> None:
    read = {"x": dataclasses.replace(clean("alpha", 0).card.signals["x"], file="{id}.edf")}
    a, b = (
        dataclasses.replace(d, card=dataclasses.replace(d.card, root="lab", signals=read))
        for d in (clean("alpha", seed), clean("beta", seed))
    )
    assert overlaps([a.used(), b.used()]) == []
    who = np.random.default_rng(seed).choice(a.rows("train").recording.unique())
    b = b.having(recording=b.windows.recording.replace({"r9": who, who: "r9"}))
    found = {(f.a.recording, f.a.dataset, f.b.dataset) for f in overlaps([a.used(), b.used()]) if f.b.split == "test"}
    assert found == {(who, "alpha", "beta"), ("r9", "beta", "alpha")}


# ---------------------------------------------------------------- windows
@pytest.mark.parametrize("seed", SEEDS)
def test_a_window_of_another_dataset_is_found_whatever_was_done_to_it(tmp_path: Path, seed: int) -> None:
    a = clean("alpha", seed)
    b, where = copied(a, clean("beta", seed), CHANGES, seed)
    found = {(f.a.recording, f.b.recording) for f in leaks(tmp_path, a, b) if (f.a.dataset, f.b.dataset) == ("alpha", "beta")}
    assert [name for name, pair in where.items() if pair not in found] == []
    assert found == set(where.values())


SPIKES: dict[str, Callable[..., Any]] = {
    "as it is": CHANGES["as it is"],
    "thinned": thinned,
    "a bin later": lambda x, rng: np.roll(x, -1, 0),
}


@pytest.mark.parametrize("seed", SEEDS)
def test_repeated_windows_of_one_dataset_of_spikes_are_found(tmp_path: Path, seed: int) -> None:
    a = clean("alpha", seed, make=counts)
    data, where = copied(a, a, SPIKES, seed)
    assert {(f.a.recording, f.b.recording) for f in leaks(tmp_path, data)} == set(where.values())


def test_windows_too_short_to_be_like_each_other_are_found_when_equal(tmp_path: Path) -> None:
    a, b = (dataclasses.replace(d, values={k: v[:6] for k, v in d.values.items()}) for d in (clean("alpha", 0), clean("beta", 0)))
    b, where = copied(a, b, {"as it is": CHANGES["as it is"]}, 0)
    found = leaks(tmp_path, a, b)
    assert [(f.kind, f.a.recording, f.b.recording) for f in found] == [("window", *where["as it is"])]


def test_constant_windows_are_equal_by_chance(tmp_path: Path) -> None:
    a, b = (
        dataclasses.replace(d, values={k: np.zeros_like(v) for k, v in d.values.items()}) for d in (clean("alpha", 0), clean("beta", 0))
    )
    assert leaks(tmp_path, a, b) == []


def test_other_names_and_another_order_of_channels_do_not_hide_a_copy(tmp_path: Path) -> None:
    a = clean("alpha", 0)
    b, _ = copied(a, clean("beta", 0), {"noisy": noisy(0.1)}, 0)
    order = np.random.default_rng(0).permutation(len(b.ch_names))
    b = dataclasses.replace(b, values={k: v[:, order] for k, v in b.values.items()}, ch_names=tuple(f"E{i}" for i in order))
    assert [f.kind for f in leaks(tmp_path, a, b)] == ["window"]


def test_another_rate_and_other_windows_do_not_hide_a_copy(tmp_path: Path) -> None:
    """The test recordings of beta are training recordings of alpha at half the rate, in windows of 1.5 s that begin elsewhere."""
    a = clean("alpha", 0)
    whole = {r: np.concatenate([v[:32] for v in (a.values[k] for k in rows.key)]) for r, rows in a.windows.groupby("recording")}
    half = {r: x[: len(x) // 2 * 2].reshape(-1, 2, x.shape[1]).mean(axis=1) for r, x in whole.items()}
    b = clean("beta", 0)
    b = dataclasses.replace(b, card=dataclasses.replace(b.card, grid_hz=16.0), windows=b.windows[b.windows.end <= 8])
    stretch = {k: np.asarray(b.values[k])[:48:2] for k in b.windows.key}
    for row in b.windows[b.windows.recording == "r9"].itertuples():
        start = int(row.start * 16) + 5
        stretch[row.key] = half["r0"][start : start + 24]
    b = dataclasses.replace(b, values=stretch)
    assert {(f.kind, f.a.recording, f.b.recording) for f in leaks(tmp_path, a, b)} == {("window", "r0", "r9")}


# ---------------------------------------------------------------- people
def scans(name: str, seed: int, people: list[int], kind: str = "subject") -> Dataset:
    """Scans of 60 regions with a covariance that a person has for life, on top of everyone's."""
    rows, values = [], {}
    everyone = np.random.default_rng(0).normal(size=(10, 60))
    for i, person in enumerate(people):
        rng, own = np.random.default_rng([seed, i, len(name)]), np.random.default_rng([seed, 1000 + person]).normal(size=(10, 60))
        key, split = f"{name}-{i}", "test" if i >= len(people) - 2 else "train"
        values[key] = (rng.normal(size=(250, 10)) @ everyone + rng.normal(size=(250, 10)) @ own + rng.normal(size=(250, 60))).astype(
            np.float32
        )
        who = {"recording": f"r{i}", "session": "scanner", "subject": f"{name} {i}", "family": None, "site": name}
        rows.append({"key": key, **who, "split": split, "start": 0.0, "end": 500.0})
    ch_names = tuple(f"p{i}" for i in range(60))
    about = {f"r{i}": {"age": None, "sex": None} for i in range(len(people))}
    return Dataset(card(name, "fmri", 0.5, kind=kind), pd.DataFrame(rows), values, about, ch_names)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_person_scanned_at_two_sites_under_two_names_is_found(tmp_path: Path, seed: int) -> None:
    clean_run = [Used(scans(name, seed, people).write(tmp_path)) for name, people in (("here", [*range(12)]), ("there", [*range(20, 26)]))]
    assert same_people(clean_run) == []
    twice = Used(scans("again", seed, [20, 21, 22, 23, 24, 3]).write(tmp_path))
    found = same_people([clean_run[0], twice])
    assert [(f.kind, f.a.dataset, f.a.who, f.b.dataset, f.b.who) for f in found] == [("person", "here", "here 3", "again", "again 5")]


@pytest.mark.skipif(not os.environ.get("NEUROFM_DATA"), reason="NEUROFM_DATA is not set")
def test_the_scan_that_abide_has_under_two_names_is_found(tmp_path: Path) -> None:
    ids = [f"00505{n}" for n in range(51, 65)]
    shards = write_real(tmp_path, "abide_yale", [*ids, "0050578", "0050602"])
    windows = pd.read_parquet(shards / "windows.parquet")
    windows["split"] = np.where(windows.recording == "0050578", "test", "train")
    windows.to_parquet(shards / "windows.parquet", index=False)
    used = [Used(shards)]
    found = [*same_people(used), *repeated_windows(AuditConfig(), read_traces(used[0]))]
    assert [(f.kind, f.a.recording, f.b.recording) for f in found] == [(kind, "0050602", "0050578") for kind in ("person", "window")]


# ---------------------------------------------------------------- scalers
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("seen", [("train", "validation", "test"), ("train", "validation"), ("test",)])
def test_a_scaler_that_saw_other_windows_is_found(tmp_path: Path, seed: int, seen: tuple[str, ...]) -> None:
    data = clean("alpha", seed, "block", n_recordings=5)
    wrong = data.having(split=np.where(data.windows.split.isin(seen), "train", "test"))
    (tmp_path / "right").mkdir()
    (tmp_path / "wrong").mkdir()
    shards = data.write(tmp_path / "right")
    scaler = fitted([wrong.write(tmp_path / "wrong")], tmp_path)
    found = job.wrong_scalers([Used(shards)], [scaler], AuditConfig().most_offset)
    assert {f.a.who for f in found} == set(data.windows.session)


@pytest.mark.parametrize(
    "fault", [lambda m, s: (m + 1e-2 * s, s), lambda m, s: (m, 1.01 * s), lambda m, s: (np.where(s > 0, np.nan, m), s)]
)
def test_offsets_of_any_standardiser(fault: Callable[..., Any]) -> None:
    x = np.random.default_rng(0).normal(3, 2, size=(500, 4))
    training = Moments(4)
    training.add(x)
    assert standardiser_offsets(x.mean(0), x.std(0), training).max() < 1e-9
    assert (standardiser_offsets(*fault(x.mean(0), x.std(0)), training) > 5e-3).all()


# ---------------------------------------------------------------- the job
def planted_run(folder: Path) -> tuple[list[Path], list[Path]]:
    """A run with a leak of every kind that checks tell apart, and a scaler that saw everything."""
    a = swapped(swapped(clean("alpha", 1), 1, "subject", 1)[0], 1, "family", 1)[0]
    a = swapped(a, 1, "recording", 1)[0]
    b, _ = copied(a, swapped(clean("beta", 1, "site"), 1, "site")[0], {"noisy": noisy(0.1)}, 1)
    c = swapped(clean("gamma", 1, "session"), 1, "session")[0]
    shards = [one.write(folder) for one in (a, b, c)]
    (folder / "all").mkdir()
    return shards, [fitted([a.having(split="train").write(folder / "all"), *shards[1:]], folder)]


#: Detector of the job -> the checks that only it makes fail.
DETECTORS = {
    "shared_units": {f"no_{unit}_in_two_splits" for unit in ("recording", "session", "subject", "family", "site")},
    "overlaps": {"no_time_overlap"},
    "repeated_windows": {"no_window_repeated"},
    "wrong_scalers": {"scaler_is_of_training_windows"},
}


def test_no_detector_can_be_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards, scaler = planted_run(tmp_path)
    report = audit(AuditConfig(), shards, scaler, tmp_path)
    assert {c.name for c in report.checks if not c.passed} == set(CLAIMS)
    assert all(c.severity == "error" and c.threshold and "found" in c.numbers for c in report.checks)
    table = pd.read_parquet(tmp_path / "leaks.parquet")
    assert len(table) == report.metrics["leaks"]
    assert set(table.kind) == {"recording", "session", "subject", "family", "site", "time", "window", "scaler"}
    assert all(f"| {name} | NO |" in (tmp_path / "audit.md").read_text() for name in CLAIMS)
    for detector, names in DETECTORS.items():
        with monkeypatch.context() as patched:
            patched.setattr(job, detector, lambda *_: [])
            checks = audit(AuditConfig(), shards, scaler, tmp_path).checks
        assert {c.name for c in checks if c.passed} == names


def test_a_clean_report(tmp_path: Path) -> None:
    shards = [clean("alpha", 0, n_recordings=5).write(tmp_path)]
    report = audit(AuditConfig(), shards, [fitted(shards, tmp_path)], tmp_path)
    assert all(c.passed for c in report.checks)
    assert pd.read_parquet(tmp_path / "leaks.parquet").empty
    assert "None." in (tmp_path / "audit.md").read_text()


@pytest.mark.parametrize(
    ("wrong", "match"), [({"least_r": 1.0}, "least_r"), ({"least_surprise": 0.0}, "least_surprise"), ({"most_offset": -1.0}, "most_offset")]
)
def test_thresholds_that_make_no_sense_are_refused(wrong: dict[str, float], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        AuditConfig(**wrong)  # type: ignore[arg-type]
