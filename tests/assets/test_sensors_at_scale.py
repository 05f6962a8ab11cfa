"""A thousand files arrive while the sensor looks a thousand times: none is missed, and nothing is computed twice."""

import dataclasses
import os
import random
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from neurofm_assets import automation
from neurofm_assets.assets.data import recordings
from neurofm_assets.automation import arrivals
from neurofm_assets.partitions import CARDS
from neurofm_assets.store import Store
from neurofm_ml import jobs, presets
from neurofm_ml.config import to_dict
from neurofm_ml.jobs import JobSpec

DATASETS = [name for name in CARDS if name.startswith("abide_")]
FILES, TICKS = 1000, 1000
Writes = Iterator[Callable[[], object]]


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Path]]:
    """Where the files of several datasets will lie, in no order."""
    monkeypatch.setenv("NEUROFM_DATA", str(tmp_path / "data"))
    found = []
    for number in range(FILES):
        name = DATASETS[number % len(DATASETS)]
        card = CARDS[name]
        found.append((name, tmp_path / "data" / card.root / card.pattern.replace("{id}", f"{number:07d}")))
    random.Random(0).shuffle(found)
    for _, path in found:
        path.parent.mkdir(parents=True, exist_ok=True)
    return found


@pytest.fixture
def light(paths: list[tuple[str, Path]], monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are found by their names alone, not by their cards."""

    def files_of(name: str) -> list[Path]:
        here = set(os.listdir(folder))
        return [path for path in own[name] if path.name in here]

    own = {name: [path for owner, path in paths if owner == name] for name in DATASETS}
    (folder,) = {path.parent for _, path in paths}
    sources = {f"prepare/{name}": arrivals.Source("prepare", recordings, name, partial(files_of, name)) for name in DATASETS}
    monkeypatch.setattr(arrivals, "SOURCES", sources)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch, ran: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Fingerprints of what was computed, once for each time."""
    found: list[str] = []
    stand_in = jobs.JOBS["ingest"]

    def function(cfg: Any, inputs: jobs.Inputs, out: Path) -> Any:
        found.append(out.name.removeprefix("work-"))
        return stand_in.function(cfg, inputs, out)

    monkeypatch.setitem(jobs.JOBS._members, "ingest", dataclasses.replace(stand_in, function=function))
    return found


def written(paths: list[tuple[str, Path]], rng: random.Random) -> Writes:
    """What happens between two ticks, in bursts: files appear, some half-written, some change again, some are touched."""
    for _, path in paths:
        if rng.random() < 0.2:
            yield partial(path.write_text, "half")
        yield partial(path.write_text, f"whole {path.name}")
        if rng.random() < 0.05:
            yield partial(path.write_text, f"better {path.name}")
        if rng.random() < 0.05:
            yield path.touch


def ingest(store: Store, name: str, files: list[Path]) -> None:
    """What the requested run does."""
    config = to_dict(presets.IngestConfig(dataset=name))
    jobs.run(JobSpec(job="ingest", config=config, inputs={"raw": tuple(map(str, files))}, out=str(store.path(recordings, name))))


@pytest.mark.parametrize("listing", [pytest.param("light"), pytest.param("real", marks=pytest.mark.slow)])
def test_a_thousand_files(
    listing: str, paths: list[tuple[str, Path]], computed: list[str], store: Store, request: pytest.FixtureRequest
) -> None:
    if listing == "light":
        request.getfixturevalue("light")
    rng, keys, cursor, context = random.Random(1), [], None, None
    writes = written(paths, rng)
    with dg.DagsterInstance.ephemeral() as instance:
        for number in range(TICKS):
            for write in [w for _ in range(rng.choice([0] * 50 + [40, 60])) if (w := next(writes, None))]:
                write()
            if number == TICKS // 2:
                cursor = None  # lost
            if not context or context.cursor != cursor:
                context = dg.build_sensor_context(cursor=cursor, instance=instance, resources={"store": store})
            result = automation.new_raw_files(context)
            assert isinstance(result, dg.SensorResult)
            cursor = result.cursor
            for asked in result.run_requests or ():
                if asked.job_name == "prepare":
                    keys.append(asked.run_key)
                    ingest(store, asked.partition_key or "", arrivals.SOURCES[f"prepare/{asked.partition_key}"].files())
    assert next(writes, None) is None, "all have arrived well before the last tick"
    assert len(computed) == len(set(computed)) == len(keys)
    for name in DATASETS:
        made_from = jobs.load_result(Path(store.get(recordings, name))).inputs["raw"]
        assert {found["path"]: found["data_version"] for found in made_from} == {
            str(path): jobs.version_of(path) for owner, path in paths if owner == name
        }
