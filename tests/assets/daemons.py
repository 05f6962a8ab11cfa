"""Dagster's own processes on the light code location, and what may befall them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from neurofm_assets.instance import write_settings

T = TypeVar("T")
LOCATION = Path(__file__).with_name("location.py")
DAEMON = ("dagster._daemon", "run")
#: Times of dagster.yaml that a test does not wait for.
QUICKER = {"poll_interval_seconds: 30": "poll_interval_seconds: 2"}


def settings() -> Path:
    """The instance's settings as they are, with shorter waits."""
    folder = write_settings()
    path = folder / "dagster.yaml"
    text = path.read_text()
    for slow, quick in QUICKER.items():
        assert slow in text
        text = text.replace(slow, quick)
    path.write_text(text)
    return folder


class Process:
    """A process of Dagster's with all that it started."""

    def __init__(self, folder: Path, *command: str) -> None:
        self.log = (folder / "log.txt").open("a")
        words = [sys.executable, "-m", *command, "-f", str(LOCATION)]
        environment = {**os.environ, "DAGSTER_HOME": str(folder)}
        self.process = subprocess.Popen(words, env=environment, stdout=self.log, stderr=subprocess.STDOUT, start_new_session=True)

    def kill(self) -> None:
        """kill -9 of the process alone: what it started goes on."""
        self.process.kill()
        self.process.wait()

    def kill_all(self) -> None:
        """kill -9 of everything at once, as when the power goes."""
        for pid in reversed([self.process.pid, *descendants(self.process.pid)]):
            kill(pid)
        self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.kill_all()
        self.log.close()


@contextmanager
def running(folder: Path, *command: str) -> Iterator[Process]:
    process = Process(folder, *command)
    try:
        yield process
    finally:
        process.close()


def descendants(pid: int) -> list[int]:
    """Processes that a process started, and those that these did."""
    found = []
    for child in Path(f"/proc/{pid}/task").glob("*/children"):
        for number in child.read_text().split():
            found += [int(number), *descendants(int(number))]
    return found


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def wait_for(what: str, told: Callable[[], T], seconds: float = 120.0) -> T:
    """What `told` gives once it gives something."""
    end = time.monotonic() + seconds
    while not (found := told()):
        assert time.monotonic() < end, f"no {what} after {seconds:g} s"
        time.sleep(0.2)
    return found


def queue(folder: Path, job: str, partition: str) -> None:
    """Ask for a run, as a person at a terminal does."""
    words = ["-m", "dagster", "job", "launch", "-f", str(LOCATION), "-j", job, "--tags", json.dumps({"dagster/partition": partition})]
    subprocess.run([sys.executable, *words], env={**os.environ, "DAGSTER_HOME": str(folder)}, check=True, capture_output=True)


def computed(home: Path) -> list[tuple[str, str]]:
    """Every computation so far: job, fingerprint."""
    file = home / "computed.txt"
    return [tuple(line.split()[:2]) for line in file.read_text().splitlines()] if file.exists() else []  # type: ignore[misc]
