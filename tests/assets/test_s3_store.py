"""Machines that share an object store: what one has materialised, the next one finds, shows and builds on."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from doubles import Double, serving

from neurofm_assets.assets.data import recordings, shards
from neurofm_assets.definitions import ASSETS, build_defs
from neurofm_assets.store import Store
from neurofm_ml import remote
from neurofm_ml.data.stores import open_files

Ran = list[tuple[str, dict[str, Any]]]


@pytest.fixture(autouse=True)
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Double]:
    """A store that throttles every third request."""
    monkeypatch.setattr(remote, "PAUSE_S", 0.001)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "access")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("NEUROFM_STORE", "s3://bucket/team")
    (tmp_path / "served/bucket").mkdir(parents=True)
    with serving(tmp_path / "served") as double:
        monkeypatch.setenv("AWS_ENDPOINT_URL", double.url)
        double.secret, double.throttle = "secret", 3
        yield double


@pytest.fixture
def store_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Store]:
    """Go on on the machine of this name."""

    def enter(name: str) -> Store:
        monkeypatch.setenv("NEUROFM_HOME", str(tmp_path / name))
        return Store(home=str(tmp_path / name))

    return enter


def materialize(store: Store, *names: str) -> dg.ExecuteInProcessResult:
    defs = build_defs(store=store)
    return dg.materialize(ASSETS, selection=list(names), partition_key="simulation", resources=defs.resources)


def pages(result: dg.ExecuteInProcessResult) -> dict[str, dict[str, Any]]:
    """What Dagster shows, by asset."""
    events = (event.step_materialization_data.materialization for event in result.get_asset_materialization_events())
    return {seen.asset_key.path[-1]: {label: entry.value for label, entry in seen.metadata.items()} for seen in events}


def test_what_one_machine_made_the_next_one_finds_shows_and_reads_where_it_lies(ran: Ran, store_on: Callable[[str], Store]) -> None:
    first = pages(materialize(store_on("one"), "recordings", "quality", "shards"))
    made = list(ran)
    second = pages(materialize(two := store_on("two"), "recordings", "quality", "shards"))
    assert ran == made
    assert all(page["reused"] for page in second.values())
    for name, page in second.items():
        assert page["plot"] == first[name]["plot"]
        assert page["path"].startswith(two.home)
    files = sorted(path.name for path in Path(second["shards"]["path"]).iterdir())
    assert files == ["plot.png"], "a machine that only plans holds what it shows"
    assert json.loads(open_files(two.url(shards, "simulation")).read("content.json"))[0] == "write_shards"


def test_what_one_machine_made_the_next_one_builds_on(ran: Ran, store_on: Callable[[str], Store]) -> None:
    materialize(store_on("one"), "recordings", "quality")
    two = store_on("two")
    assert two.here(recordings, ["worm_swf415", "simulation"]) == ["simulation"]
    assert two.here(shards, ["simulation"]) == []
    assert materialize(two, "shards").success
    assert [name for name, _ in ran] == ["ingest", "assess_quality", "write_shards"]
    assert (Path(two.get(recordings, "simulation")) / "content.json").exists()
    assert store_on("one").here(shards, ["simulation"]) == ["simulation"]


def test_there_is_no_url_without_a_store(ran: Ran, store_on: Callable[[str], Store], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEUROFM_STORE")
    materialize(one := store_on("one"), "recordings")
    with pytest.raises(ValueError, match=r"is not in the store \(NEUROFM_STORE is None\)"):
        one.url(recordings, "simulation")
