"""Loaded by every Python of a pod as it starts: there the job `ingest` is a light one that counts, and can be resumed.

It prints each step, keeps a chain of hashes, and writes a checkpoint every few steps. What befalls it is in
``$COUNTING/plan.json``: number of the start -> [act, step]; ``$COUNTING/starts`` has a line for each start, the step it began at.
In a gang the processes agree on each step, and the first writes.
"""

import dataclasses
import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

STEPS = 12
EVERY = 4
FOLDER = Path(os.environ["COUNTING"])


def count(cfg: Any, inputs: Any, out: Path) -> Any:
    from neurofm_ml import gang
    from neurofm_ml.files import write_json
    from neurofm_ml.types import Check, Preempted, Report

    agree = together() if gang.world() > 1 else lambda: None
    saved = out / "checkpoint.json"
    state = json.loads(saved.read_text()) if saved.exists() else {"step": 0, "chain": ""}
    if gang.rank() == 0:
        note(state["step"])
    agree()
    act, at = next_act()
    try:
        while state["step"] < STEPS:
            agree()
            step = state["step"] + 1
            if step == at and (act == "hold" or gang.rank() == 0):
                befall(act)
            state = {"step": step, "chain": hashlib.sha256(f"{state['chain']}{step}".encode()).hexdigest()}
            print("step", step, flush=True)
            if step % EVERY == 0 and gang.rank() == 0:
                write_json(saved, state)
    except Preempted:
        if gang.rank() == 0:
            write_json(saved, state)
        raise
    if gang.rank() == 0:
        saved.unlink()
        write_json(out / "count.json", state)
    return Report({"steps": state["step"]}, (Check("expected_numbers", True), Check("table_is_valid", True)))


def note(step: int) -> None:
    with (FOLDER / "starts").open("a") as file:
        file.write(f"{step}\n")


def next_act() -> tuple[str, int]:
    """What is to befall this start, and at which step."""
    number = len((FOLDER / "starts").read_text().splitlines())
    plan = json.loads((FOLDER / "plan.json").read_text())
    return plan.get(str(number)) or plan.get("every") or ("", 0)


def befall(act: str) -> None:
    import dagster_pipes

    from neurofm_ml.types import Preempted

    match act:
        case "hold":  # until a signal comes, or the test says that it may go on
            print("holding", flush=True)
            while not (FOLDER / "go").exists():
                time.sleep(0.01)
        case "deaf":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            print("holding", flush=True)
            while True:
                time.sleep(1)
        case "crash":
            print("out of luck", flush=True)
            os._exit(3)
        case "leave":
            os._exit(0)
        case "stop":
            raise Preempted("a notice of two minutes")
        case "wrong":
            raise ValueError("electrode A1 is not here; name another.")
        case "unheard":
            dagster_pipes.PipesFileMessageWriterChannel.write_message = lambda self, message: None
        case "die after reporting":
            write = dagster_pipes.PipesFileMessageWriterChannel.write_message

            def last(self: Any, message: Any) -> None:
                write(self, message)
                os._exit(4)

            dagster_pipes.PipesFileMessageWriterChannel.write_message = last


def together() -> Any:
    """A step that all processes of the gang take, over gloo."""
    import torch
    from torch import distributed

    distributed.init_process_group("gloo")

    def agree() -> None:
        total = torch.ones(1)
        distributed.all_reduce(total)
        assert total.item() == distributed.get_world_size()

    return agree


if any("neurofm_assets.worker" in word for word in sys.orig_argv) and "neurofm_ml.gang" not in sys.orig_argv:
    from neurofm_ml import jobs

    light = dataclasses.replace(jobs.JOBS["ingest"], function=count, resumes=True, shared=lambda cfg: True)
    jobs.JOBS._members["ingest"] = light
