"""The code location with a light stand-in behind every job, for daemons in processes of their own.

Each computation leaves a line in NEUROFM_HOME/computed.txt: job, fingerprint, process. Reading coordinates is the one that takes
its time: it writes down that it was begun, waits for the file NEUROFM_HOME/go, and resumes.
"""

import dataclasses
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg

from neurofm_assets import automation
from neurofm_assets.definitions import build_defs
from neurofm_ml import jobs
from neurofm_ml.config import to_dict
from neurofm_ml.files import home
from neurofm_ml.types import Check, Report

SLOW = "read_foci"


def stand_in(name: str, entry: jobs.Job) -> Callable[..., Report]:
    """A job that writes its inputs' versions down."""

    def function(cfg: Any, inputs: jobs.Inputs, out: Path) -> Report:
        with (home() / "computed.txt").open("a") as file:
            file.write(f"{name} {out.name.removeprefix('work-')} {os.getpid()}\n")
        if name == SLOW:
            with (out / "begun.txt").open("a") as file:
                file.write(f"{os.getpid()}\n")
            while not (home() / "go").exists():
                time.sleep(0.05)
        content = {role: [jobs.version_of(path) for path in paths] for role, paths in inputs.items()}
        (out / "content.json").write_text(json.dumps([name, to_dict(cfg), content]))
        return Report({"files": 1}, tuple(Check(claim, True, severity) for claim, severity in entry.checks.items()))

    return function


def build() -> dg.Definitions:
    """The definitions, with every job replaced and runs in one process each."""
    for name in jobs.JOBS:
        entry = jobs.JOBS[name]
        jobs.JOBS._members[name] = dataclasses.replace(entry, function=stand_in(name, entry), resumes=name == SLOW)
    automation.new_raw_files._min_interval = 1  # seconds, not thirty: a test waits for several ticks
    whole = build_defs()
    return dg.Definitions(
        assets=whole.assets,
        jobs=whole.jobs,
        sensors=whole.sensors,
        schedules=whole.schedules,
        resources=whole.resources,
        executor=dg.in_process_executor,
    )


defs = build()
