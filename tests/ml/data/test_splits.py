"""Splits: units stay whole and in proportion, blocks keep their gap, and the certificate sees every leak."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from neurofm_ml.config import to_dict
from neurofm_ml.data.recordings import save_recording
from neurofm_ml.data.splits import LEAST_CHANGES, UNITS, assign, blocks, certificate
from neurofm_ml.data.windows import shard_recordings
from neurofm_ml.knowledge.cards import DatasetCard, SignalSpec, SplitSpec, datasets
from neurofm_ml.presets import SPLITS, ShardsConfig
from neurofm_ml.types import Check, Recording, Signal, Subject


def card(**changes: Any) -> DatasetCard:
    more = {"grid_hz": 10.0, "window_s": 2.0, "stride_s": 1.0, "tasks": (), "signals": {"bold": SignalSpec(modality="fmri")}, **changes}
    return dataclasses.replace(datasets()["simulation"], **more)


# ---------------------------------------------------------------- who goes where
def test_blocks_are_60_15_25_with_a_gap() -> None:
    assert blocks(1200, card(grid_hz=5.0, split=SplitSpec(gap_s=1.2))) == {"train": (0, 714), "validation": (720, 894), "test": (900, 1200)}


def test_a_gap_is_never_shorter_than_asked() -> None:
    plan = blocks(800, card(grid_hz=1.36, split=SplitSpec(gap_s=1.0)))  # 1.36 bins: two are needed
    assert plan["validation"][0] - plan["train"][1] == 2


@pytest.mark.parametrize("n", [1, 2, 3, 4, 12, 36, 171])
def test_whole_units_are_shared_out_in_proportion_whatever_their_order(n: int) -> None:
    ids, spec = [f"sub{i}" for i in range(n)], SplitSpec(kind="subject")
    splits = assign(ids, spec)
    assert splits == assign(reversed(ids), spec)
    counts = [list(splits.values()).count(s) for s in SPLITS]
    assert counts[0] >= 1
    assert all(counts[: min(n, 3)]) or n < 3
    assert n < 12 or np.allclose(np.array(counts) / n, (0.6, 0.15, 0.25), atol=0.06)
    assert n < 12 or splits != assign(ids, SplitSpec(kind="subject", seed=1))


# ---------------------------------------------------------------- what the table proves
Row = tuple[str, str, float, float]


def table(*rows: Row, **columns: list[str | None]) -> pd.DataFrame:
    """Windows (recording, split, start, end); every recording is its own session and subject unless `columns` say otherwise."""
    made = pd.DataFrame(rows, columns=["recording", "split", "start", "end"])
    return made.assign(session=made.recording, subject=made.recording, family=None, site=None).assign(**columns)


@pytest.mark.parametrize(
    ("rows", "disjoint"),
    [
        ([("a", "train", 0, 4), ("a", "test", 5, 9)], True),
        ([("a", "train", 0, 4), ("a", "test", 4.9, 9)], False),  # gap too small
        ([("a", "test", 0, 4), ("a", "train", 3, 9)], False),  # overlap, test first
        ([("a", "train", 0, 4), ("b", "test", 0, 4)], True),  # same times, other recording
    ],
)
def test_blocks_are_disjoint_when_they_are_apart(rows: list[Row], disjoint: bool) -> None:
    assert certificate(table(*rows), SplitSpec(gap_s=1.0))["disjoint"] is disjoint


@pytest.mark.parametrize("kind", ["session", "subject", "family", "site"])
def test_a_unit_in_two_splits_is_a_leak_of_its_kind_alone(kind: str) -> None:
    columns = {"family": ["f", "g"], kind: ["x", "x"]}
    windows = table(("a", "train", 0, 4), ("b", "test", 50, 54), **columns)
    proofs = {k: certificate(windows, SplitSpec(kind=k)) for k in UNITS}  # type: ignore[arg-type]
    assert [k for k, proof in proofs.items() if not proof["disjoint"]] == [kind]
    shared = {tuple(pair["splits"]): pair["shared"][kind] for pair in proofs[kind]["pairs"]}
    assert shared == {("train", "validation"): [], ("train", "test"): ["x"], ("validation", "test"): []}


def test_a_recording_in_two_splits_is_a_leak_of_every_kind_but_block() -> None:
    windows = table(("a", "train", 0, 4), ("a", "test", 50, 54), site=["x", "x"])
    assert [k for k in UNITS if certificate(windows, SplitSpec(kind=k))["disjoint"]] == []  # type: ignore[arg-type]
    assert certificate(windows, SplitSpec())["disjoint"]


def test_a_person_without_a_family_is_a_family() -> None:
    rows: tuple[Row, ...] = (("a", "train", 0, 4), ("b", "test", 0, 4))
    spec = SplitSpec(kind="family")
    assert certificate(table(*rows, subject=["s", "t"]), spec)["disjoint"]
    assert not certificate(table(*rows, subject=["s", "s"]), spec)["disjoint"]
    assert not certificate(table(*rows, subject=["s", "t"], family=["f", "f"]), spec)["disjoint"]
    assert certificate(table(*rows, subject=["s", "f"], family=["f", None]), spec)["disjoint"]  # a family named like a person


# ---------------------------------------------------------------- from recordings to the proof
def recording(name: str, values: np.ndarray, **who: Any) -> Recording:
    subject = Subject(**{"id": name, **who})
    bold = Signal(values.astype(np.float32), 10.0, "fmri")
    return Recording(name, "simulation", subject, "ses", "none", "CC0-1.0", {"bold": bold})


def scan(seed: int, n: int = 60) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 3))


def cut(folder: Path, recordings: list[Recording], **changes: Any) -> tuple[dict[str, Check], pd.DataFrame, dict[str, Any]]:
    """Checks, window table and certificate of the shards of `recordings`."""
    made, out = card(**changes), folder / "out"
    for one in recordings:
        save_recording(one, folder / "in" / "recordings")
    (folder / "in" / "card.json").write_text(json.dumps(to_dict(made)))
    out.mkdir()
    report = shard_recordings(ShardsConfig(dataset="simulation"), folder / "in", out)
    return {c.name: c for c in report.checks}, pd.read_parquet(out / "windows.parquet"), json.loads((out / "certificate.json").read_text())


WHO: dict[str, Callable[[int], dict[str, str]]] = {
    "recording": lambda i: {},
    "subject": lambda i: {"id": f"s{i // 3}"},
    "family": lambda i: {"id": f"s{i}", "family": f"f{i // 4}"} if i < 8 else {"id": f"s{i}"},
    "site": lambda i: {"id": f"s{i}", "site": f"site{i // 3}"},
}


@pytest.mark.parametrize("kind", WHO)
def test_units_are_kept_whole(tmp_path: Path, kind: str) -> None:
    people = [recording(f"r{i}", scan(i), **WHO[kind](i)) for i in range(15)]
    checks, windows, proof = cut(tmp_path, people, split=SplitSpec(kind=kind))  # type: ignore[arg-type]
    unit = windows.family.fillna(windows.subject) if kind == "family" else windows[kind]
    assert set(windows.split) == set(SPLITS)
    assert windows.groupby(unit).split.nunique().max() == 1
    assert checks["splits_are_disjoint"].passed
    assert proof["disjoint"]
    assert proof["kind"] == kind


def test_sessions_are_kept_whole(tmp_path: Path) -> None:
    people = [dataclasses.replace(recording(f"r{i}", scan(i), id="one"), session=f"day{i // 2}") for i in range(10)]
    checks, windows, proof = cut(tmp_path, people, split=SplitSpec(kind="session"))
    assert windows.groupby("session").split.nunique().max() == 1
    assert checks["splits_are_disjoint"].passed
    assert proof["pairs"][0]["shared"]["subject"] == ["one"]  # told, though the rule does not forbid it


def test_an_unknown_site_is_refused_by_name(tmp_path: Path) -> None:
    people = [recording("r0", scan(0), site="NYU"), recording("r1", scan(1))]
    with pytest.raises(
        ValueError, match="r1: its site is not known, so recordings cannot be split by site; give the card the field 'site'"
    ):
        cut(tmp_path, people, split=SplitSpec(kind="site"))


@pytest.mark.parametrize("kind", ["subject", "site"])
def test_a_scan_under_two_names_is_caught(tmp_path: Path, kind: str) -> None:
    """Fourteen people, one of them twice: whoever gets the copy, it is seen, unless both are declared one person."""
    spec = SplitSpec(kind=kind)  # type: ignore[arg-type]
    names = [f"p{i}" for i in range(14)]
    where = assign(names if kind == "subject" else [f"at {n}" for n in names], spec)
    split_of = {n: where[n if kind == "subject" else f"at {n}"] for n in names}
    original = next(n for n in names if split_of[n] == "train")
    copy = next(n for n in names if split_of[n] == "test")
    people = [recording(n, scan(names.index(original if n == copy else n)), site=f"at {n}") for n in names]
    checks, _, proof = cut(tmp_path, people, split=spec)
    check = checks["no_window_is_repeated_across_splits"]
    assert checks["splits_are_disjoint"].passed
    assert (check.passed, check.severity, check.numbers["repeated"]) == (False, "error", 5)
    assert f"bold of {original} and {copy} (train and test)" in check.note
    assert not proof["disjoint"]
    assert proof["repeated"] == [{"signal": "bold", "splits": ["train", "test"], "recordings": [original, copy], "windows": 5}]


def test_copies_of_one_person_stay_together(tmp_path: Path) -> None:
    people = [recording(f"r{i}", scan(i // 2), id=f"p{i // 2}") for i in range(12)]
    checks, _, proof = cut(tmp_path, people, split=SplitSpec(kind="subject"))
    assert checks["no_window_is_repeated_across_splits"].passed
    assert proof["disjoint"]


def test_a_recording_that_repeats_itself_is_caught(tmp_path: Path) -> None:
    """A file written twice end to end: block splits are apart in time and hold the same all the same."""
    once = scan(0, 100)
    checks, _, proof = cut(tmp_path, [recording("r", np.concatenate([once, once]))], split=SplitSpec(train=0.5, validation=0.1))
    assert not checks["no_window_is_repeated_across_splits"].passed
    assert {tuple(r["recordings"]) for r in proof["repeated"]} == {("r", "r")}


@pytest.mark.parametrize(("changes", "caught"), [(0, False), (LEAST_CHANGES - 2, False), (LEAST_CHANGES, True)])
def test_windows_that_may_be_equal_by_chance_are_excepted(tmp_path: Path, changes: int, caught: bool) -> None:
    """A dead electrode, a nearly silent unit."""
    values = np.zeros((20, 1))
    values[1 : changes + 1 : 2] = 1.0
    people = [recording(f"r{i}", values) for i in range(8)]
    checks, _, proof = cut(tmp_path, people, split=SplitSpec(kind="subject"))
    assert checks["no_window_is_repeated_across_splits"].passed is not caught
    assert (proof["excepted"]["windows"] == 8) is not caught
    assert "equal by chance" in proof["excepted"]["reason"]


def test_what_was_shown_may_repeat(tmp_path: Path) -> None:
    """The same film is shown to everybody."""
    film = scan(99)
    people = [recording(f"r{i}", scan(i)) for i in range(8)]
    watching = [r.with_signals({**r.signals, "film": Signal(film.astype(np.float32), 10.0, "video")}, "watched") for r in people]
    both = {"bold": SignalSpec(modality="fmri"), "film": SignalSpec(modality="video")}
    checks, _, _ = cut(tmp_path, watching, split=SplitSpec(kind="subject"), signals=both)
    assert checks["no_window_is_repeated_across_splits"].passed
