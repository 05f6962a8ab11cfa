"""Arrivals of raw files: what the sensor asks for, tick after tick."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from neurofm_assets import automation
from neurofm_assets.assets import data
from neurofm_assets.automation import arrivals
from neurofm_assets.store import Store
from neurofm_ml.knowledge.cards import datasets
from neurofm_ml.knowledge.files import raw_files
from neurofm_ml.knowledge.tables import tables

Ran = list[tuple[str, dict[str, Any]]]
Materialize = Callable[..., dg.ExecuteInProcessResult]
WORM, BRAIN = "worm_swf415", "abide_olin"


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


class Ticks:
    """The sensor of raw files, tick after tick; `job` names whose requests are told."""

    def __init__(self, store: Store, instance: dg.DagsterInstance, job: str = "prepare") -> None:
        self.store, self.instance = store, instance
        self.job = job
        self.cursor: str | None = None
        self.context = self.at(None)
        self.last: dg.RunRequest | None = None

    def at(self, cursor: str | None) -> dg.SensorEvaluationContext:
        return dg.build_sensor_context(cursor=cursor, instance=self.instance, resources={"store": self.store})

    def tick(self) -> list[str]:
        """Partitions requested at the next tick."""
        if self.context.cursor != self.cursor:
            self.context = self.at(self.cursor)
        result = automation.new_raw_files(self.context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        requests = [request for request in result.run_requests or () if request.job_name == self.job]
        self.last = requests[-1] if requests else self.last
        return [request.partition_key or "" for request in requests]

    @property
    def told(self) -> dict[str, str]:
        """What the last request said of the files."""
        assert self.last
        return {key.removeprefix("neurofm/files_"): n for key, n in self.last.tags.items() if key.startswith("neurofm/")}


@pytest.fixture
def ticks(store: Store, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ticks:
    monkeypatch.setenv("NEUROFM_DATA", str(tmp_path / "data"))
    return Ticks(store, instance)


@pytest.fixture
def raw(ticks: Ticks, tmp_path: Path) -> Path:
    """Where a raw file of the worm would lie."""
    card = datasets()[WORM]
    path = tmp_path / "data" / card.root / card.pattern.replace("{id}", card.recordings[0].id)
    path.parent.mkdir(parents=True)
    return path


@pytest.fixture
def brains(ticks: Ticks, tmp_path: Path) -> list[Path]:
    """Where four raw files of a dataset of many would lie."""
    card = datasets()[BRAIN]
    files = [tmp_path / "data" / card.root / card.pattern.replace("{id}", f"{i:07d}") for i in range(4)]
    files[0].parent.mkdir(parents=True)
    return files


def test_new_files_are_requested_once_they_hold_still(ticks: Ticks, raw: Path) -> None:
    assert ticks.tick() == []
    for size in (10, 20, 30):  # still being written
        raw.write_bytes(b"x" * size)
        assert ticks.tick() == []
    assert ticks.tick() == [WORM]


def test_repeated_ticks_request_nothing_new(ticks: Ticks, raw: Path) -> None:
    raw.write_bytes(b"x")
    assert [ticks.tick() for _ in range(1000)] == [[], [WORM], *[[]] * 998]


def test_the_cursor_grows_with_sources_not_with_files(ticks: Ticks, brains: list[Path]) -> None:
    for file in brains:
        file.write_bytes(b"x")
    ticks.tick()
    ticks.tick()
    kept = json.loads(ticks.cursor or "")[f"prepare/{BRAIN}"]
    assert len(json.dumps(kept)) < 60


def test_a_changed_file_is_requested_again(ticks: Ticks, raw: Path) -> None:
    raw.write_bytes(b"x")
    assert [ticks.tick() for _ in range(2)] == [[], [WORM]]
    raw.write_bytes(b"xy")
    assert [ticks.tick() for _ in range(3)] == [[], [WORM], []]


def test_a_file_that_is_as_it_was_before_is_requested_again(ticks: Ticks, raw: Path) -> None:
    """The first content is back while the artifact is of the second: each request has a key of its own."""
    keys = []
    for content in (b"x", b"y", b"x", b"y"):
        raw.write_bytes(content)
        assert any(ticks.tick() for _ in range(3))
        assert ticks.last
        keys.append(ticks.last.run_key)
    assert len(set(keys)) == 4


def test_a_request_says_what_is_new_changed_or_gone(ran: Ran, ticks: Ticks, brains: list[Path], materialize: Materialize) -> None:
    for file in brains[:3]:
        file.write_bytes(b"x")
    assert [ticks.tick() for _ in range(2)] == [[], [BRAIN]]
    assert ticks.told == {"new": "3", "changed": "0", "removed": "0"}
    materialize("recordings", key=BRAIN)
    brains[0].write_bytes(b"xy")
    brains[1].unlink()
    brains[3].write_bytes(b"x")
    assert [ticks.tick() for _ in range(3)] == [[], [BRAIN], []]
    assert ticks.told == {"new": "1", "changed": "1", "removed": "1"}


def test_files_that_were_touched_request_nothing(ran: Ran, ticks: Ticks, raw: Path, materialize: Materialize) -> None:
    raw.write_bytes(b"x")
    assert [ticks.tick() for _ in range(2)] == [[], [WORM]]
    materialize("recordings", key=WORM)
    raw.touch()
    assert [ticks.tick() for _ in range(3)] == [[], [], []]


def test_a_lost_cursor_requests_nothing_that_is_made(ran: Ran, ticks: Ticks, raw: Path, materialize: Materialize) -> None:
    raw.write_bytes(b"x")
    materialize("recordings", key=WORM)
    assert [ticks.tick() for _ in range(3)] == [[], [], []]


def test_what_is_too_large_to_read_is_requested_unread(
    ran: Ran, ticks: Ticks, raw: Path, materialize: Materialize, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw.write_bytes(b"xyz")
    materialize("recordings", key=WORM)
    monkeypatch.setattr(arrivals, "READ_BYTES", 2)
    monkeypatch.setattr(arrivals, "version_of", None)
    assert [ticks.tick() for _ in range(3)] == [[], [WORM], []]


def test_a_tick_reads_no_more_than_it_may_and_the_next_goes_on(
    ran: Ran, ticks: Ticks, raw: Path, brains: list[Path], materialize: Materialize, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path, key in ((raw, WORM), (brains[0], BRAIN)):
        path.write_bytes(b"x")
        materialize("recordings", key=key)
        path.write_bytes(b"xy")
    monkeypatch.setattr(arrivals, "READ_BYTES", 3)
    assert sorted(ticks.tick() for _ in range(4)) == [[], [], [BRAIN], [WORM]]


def test_what_cannot_be_read_holds_up_nothing_else(ran: Ran, ticks: Ticks, raw: Path, brains: list[Path], materialize: Materialize) -> None:
    raw.write_bytes(b"x")
    materialize("recordings", key=WORM)
    said = Path(ticks.store.get(data.recordings, WORM)) / "result.json"
    whole = said.read_text()
    said.write_text("{")
    for path in (raw, brains[0]):
        path.write_bytes(b"xy")
    assert [ticks.tick() for _ in range(3)] == [[], [BRAIN], []]
    said.write_text(whole)
    assert [ticks.tick() for _ in range(2)] == [[WORM], []]


def test_files_that_are_gone_request_nothing(ticks: Ticks, raw: Path) -> None:
    raw.write_bytes(b"x")
    assert [ticks.tick() for _ in range(2)] == [[], [WORM]]
    raw.unlink()
    assert [ticks.tick() for _ in range(2)] == [[], []]
    assert raw_files(datasets()[WORM]) == []


def test_a_file_that_vanishes_while_it_is_looked_at_is_one_that_changes(raw: Path) -> None:
    assert arrivals.stat_of(raw) == (-1, -1)


def test_tables_and_corpora_arrive_as_datasets_do(ticks: Ticks, tmp_path: Path) -> None:
    card = tables()["narratives_participants"]
    (spec,) = card.files
    path = tmp_path / "data" / card.root / spec.file
    path.parent.mkdir(parents=True)
    path.write_text("x")
    ticks.job = "tabulate"
    assert [ticks.tick() for _ in range(3)] == [[], [card.name], []]
    packaged = Ticks(ticks.store, ticks.instance, "collect")
    assert packaged.tick() == []
    assert "nback_flanker" in packaged.tick()
