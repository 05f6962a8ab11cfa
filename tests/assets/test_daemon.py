"""A real daemon, killed while files arrive: what arrived is prepared once, by whichever daemon was there."""

import os
import subprocess
import sys
from pathlib import Path

import daemons
import dagster as dg
import pytest

from neurofm_assets.assets.data import recordings, shards
from neurofm_assets.partitions import CARDS
from neurofm_assets.store import Store
from neurofm_ml.jobs import current, load_result

DATASETS = ["abide_nyu", "abide_olin", "abide_pitt"]


@pytest.fixture
def folder(neurofm_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The settings of an instance whose sensor of raw files is switched on."""
    monkeypatch.setenv("NEUROFM_DATA", str(tmp_path / "data"))
    folder = daemons.settings()
    command = [sys.executable, "-m", "dagster", "sensor", "start", "-f", str(daemons.LOCATION), "new_raw_files"]
    subprocess.run(command, env={**os.environ, "DAGSTER_HOME": str(folder)}, check=True, capture_output=True)
    (neurofm_home / "go").touch()
    return folder


def arrive(data: Path, *numbers: int) -> None:
    """Files of every dataset."""
    for name in DATASETS:
        for number in numbers:
            path = data / CARDS[name].root / CARDS[name].pattern.replace("{id}", f"{number:07d}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{name} {number}")


def prepared(store: Store, files: int) -> bool:
    """Whether the recordings of every dataset were made from so many files, and the shards from these recordings."""
    for name in DATASETS:
        made, cut = (current(store.path(asset, name)) for asset in (recordings, shards))
        if not made or not cut:
            return False
        if len(load_result(made).inputs["raw"]) < files or load_result(cut).inputs["recordings"][0]["path"] != str(made):
            return False
    return True


@pytest.mark.slow
def test_files_that_arrive_around_a_killed_daemon_are_prepared_once(folder: Path, store: Store, neurofm_home: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    arrive(data, 0, 1)
    with daemons.running(folder, *daemons.DAEMON) as first:
        daemons.wait_for("run", lambda: any(job == "ingest" for job, _ in daemons.computed(neurofm_home)))
        arrive(data, 2)
        first.kill()
    arrive(data, 3)
    with daemons.running(folder, *daemons.DAEMON), dg.DagsterInstance.from_config(str(folder)) as instance:
        daemons.wait_for("shards of all files", lambda: prepared(store, 4), seconds=300)
        going = dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED])
        daemons.wait_for("end", lambda: not instance.get_runs(going))
        failed = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
    done = daemons.computed(neurofm_home)
    assert len(done) == len(set(done)), "no fingerprint twice"
    assert not failed
