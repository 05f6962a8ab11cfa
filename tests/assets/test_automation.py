"""What starts by itself, and what must not."""

import json
from pathlib import Path

import dagster as dg
import pytest

from neurofm_assets import automation
from neurofm_assets.definitions import ASSETS
from neurofm_assets.store import Store
from neurofm_ml.knowledge.cards import datasets, raw_files


class Ticks:
    """The sensor, tick after tick."""

    def __init__(self) -> None:
        self.cursor: str | None = None
        self.tags: dict[str, str] = {}

    def tick(self) -> list[str]:
        """Datasets requested at the next tick; the tags of the last request are kept."""
        context = dg.build_sensor_context(cursor=self.cursor)
        result = automation.new_raw_files(context)
        assert isinstance(result, dg.SensorResult)
        self.cursor = result.cursor
        for request in result.run_requests or ():
            self.tags = {key.removeprefix("neurofm/files_"): n for key, n in request.tags.items() if key.startswith("neurofm/")}
        return [request.partition_key or "" for request in result.run_requests or ()]


@pytest.fixture
def raw(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A raw file of the worm, as an archive would lay it out."""
    monkeypatch.setenv("NEUROFM_DATA", str(tmp_path / "data"))
    card = datasets()["worm_swf415"]
    path = tmp_path / "data" / card.root / card.pattern.replace("{id}", card.recordings[0].id)
    path.parent.mkdir(parents=True)
    return path


def test_new_files_are_requested_once_they_hold_still(raw: Path) -> None:
    ticks = Ticks()
    assert ticks.tick() == []
    for size in (10, 20, 30):  # still being written
        raw.write_bytes(b"x" * size)
        assert ticks.tick() == []
    assert ticks.tick() == ["worm_swf415"]


def test_repeated_ticks_request_nothing_new(raw: Path) -> None:
    raw.write_bytes(b"x")
    ticks = Ticks()
    assert [ticks.tick() for _ in range(1000)] == [[], ["worm_swf415"], *[[]] * 998]
    assert len(json.loads(ticks.cursor or "")) == 1


def test_a_changed_file_is_requested_again(raw: Path) -> None:
    raw.write_bytes(b"x")
    ticks = Ticks()
    ticks.tick()
    ticks.tick()
    raw.write_bytes(b"xy")
    assert [ticks.tick() for _ in range(3)] == [[], ["worm_swf415"], []]


def test_a_request_says_what_is_new_changed_or_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEUROFM_DATA", str(tmp_path))
    card = datasets()["abide_olin"]
    files = [tmp_path / card.root / card.pattern.replace("{id}", f"{i:07d}") for i in range(4)]
    files[0].parent.mkdir(parents=True)
    for file in files[:3]:
        file.write_bytes(b"x")
    ticks = Ticks()
    assert [ticks.tick() for _ in range(2)] == [[], [card.name]]
    assert ticks.tags == {"new": "3", "changed": "0", "removed": "0"}
    files[0].write_bytes(b"xy")
    files[1].unlink()
    files[3].write_bytes(b"x")
    assert [ticks.tick() for _ in range(3)] == [[], [card.name], []]
    assert ticks.tags == {"new": "1", "changed": "1", "removed": "1"}


def test_files_that_are_gone_request_nothing(raw: Path) -> None:
    raw.write_bytes(b"x")
    ticks = Ticks()
    ticks.tick()
    ticks.tick()
    raw.unlink()
    assert [ticks.tick() for _ in range(2)] == [[], []]


def test_a_request_names_the_state_it_is_for(raw: Path) -> None:
    raw.write_bytes(b"x")
    assert raw_files(datasets()["worm_swf415"]) == [raw]
    ticks = Ticks()
    ticks.tick()
    result = automation.new_raw_files(dg.build_sensor_context(cursor=ticks.cursor))
    assert isinstance(result, dg.SensorResult)
    (request,) = result.run_requests or ()
    assert request.run_key == f"worm_swf415:{automation.state_of(automation.stamps(datasets()['worm_swf415']))}"


def test_quality_is_judged_each_night_for_what_is_here(store: Store) -> None:
    context = dg.build_schedule_context(resources={"store": store}, scheduled_execution_time=None)
    assert list(automation.nightly_quality.evaluate_tick(context).run_requests or ()) == []


def test_no_gpu_asset_starts_by_condition() -> None:
    specs = [spec for asset in ASSETS for spec in asset.specs]
    on_gpu = {asset.key for asset in ASSETS if asset.op.pool == "gpu"}
    assert on_gpu == {dg.AssetKey("neurofmx_pretrained"), dg.AssetKey("neurofmx_adapted")}
    assert not [spec.key for spec in specs if spec.automation_condition and spec.key in on_gpu]


def test_nothing_runs_until_it_is_switched_on() -> None:
    assert automation.new_raw_files.default_status == dg.DefaultSensorStatus.STOPPED
    assert automation.nightly_quality.default_status == dg.DefaultScheduleStatus.STOPPED


def test_the_jobs_cover_the_graph() -> None:
    steps = {key for step in automation.STEPS for key in step.selection.resolve(ASSETS)}
    assert steps == {asset.key for asset in ASSETS}
