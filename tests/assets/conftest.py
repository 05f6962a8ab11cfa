"""A light stand-in for every job, so that the graph runs in seconds."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from neurofm_assets.definitions import ASSETS, build_defs
from neurofm_assets.store import Store
from neurofm_ml import jobs
from neurofm_ml.config import to_dict
from neurofm_ml.files import sha256
from neurofm_ml.types import Check, Report

PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c63f8cfc0f01f00050001ffab5a2bd40000000049454e44ae426082"
)


@pytest.fixture(autouse=True)
def neurofm_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NEUROFM_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def store(neurofm_home: Path) -> Store:
    return Store(home=str(neurofm_home))


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """Every job replaced by one that writes down its inputs; the list grows by (job, config) at each run."""
    log: list[tuple[str, dict[str, Any]]] = []

    def stand_in(name: str, entry: jobs.Job) -> Callable[..., Report]:
        def function(cfg: Any, inputs: jobs.Inputs, out: Path) -> Report:
            log.append((name, to_dict(cfg)))
            content = {role: [version_of(path) for path in paths] for role, paths in inputs.items()}
            (out / "content.json").write_text(json.dumps([name, to_dict(cfg), content]))
            (out / "plot.png").write_bytes(PNG)
            checks = tuple(Check(claim, True, severity, {"value": 1.0}, "> 0") for claim, severity in entry.checks.items())
            return Report({"rows": 3, "loss": float("nan")}, checks, {"plot": "plot.png"})

        return function

    for name in jobs.JOBS:
        entry = jobs.JOBS[name]
        monkeypatch.setitem(jobs.JOBS._members, name, dataclasses.replace(entry, function=stand_in(name, entry)))
    return log


def version_of(path: Path) -> str:
    return jobs.load_result(path).data_version if path.is_dir() else sha256(path)


@pytest.fixture
def materialize(store: Store) -> Callable[..., dg.ExecuteInProcessResult]:
    """Materialise assets by name, in process, on an instance of its own."""

    def run(
        *assets: str, key: str, config: dict[str, Any] | None = None, raise_on_error: bool = True, **resources: Any
    ) -> dg.ExecuteInProcessResult:
        defs = build_defs(store=store, **resources)
        run_config = {"ops": {name: {"config": values} for name, values in (config or {}).items()}}
        return dg.materialize(
            ASSETS,
            selection=list(assets),
            partition_key=key,
            resources=defs.resources,
            run_config=run_config,
            raise_on_error=raise_on_error,
        )

    return run
