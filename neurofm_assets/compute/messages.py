"""Pipes messages through a file on storage that both sides see.

Unlike Dagster's own reader of files it never truncates the file, since an orchestrator that comes back must see what
was said before, and it takes the pods of one Job, which write one after the other, for one writer: what a
pod said as its result counts only once it has closed.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_pipes import PIPES_PROTOCOL_VERSION_FIELD, PipesDefaultMessageWriter, PipesMessage

_PAUSE_S = 0.2
_BEGIN = f'{{"{PIPES_PROTOCOL_VERSION_FIELD}"'


class SharedFileMessages(dg.PipesMessageReader):
    """Reads the messages of all pods of a Job from one file, from its beginning."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextmanager
    def read_messages(self, handler: dg.PipesMessageHandler) -> Iterator[dict[str, Any]]:
        self.path.touch()
        over = threading.Event()
        thread = threading.Thread(target=self._read, args=(_Pods(handler), over), daemon=True)
        thread.start()
        try:
            yield {PipesDefaultMessageWriter.FILE_PATH_KEY: str(self.path)}
        finally:
            over.set()
            thread.join()

    def _read(self, pods: "_Pods", over: threading.Event) -> None:
        at, last = 0, False
        while not last:
            last = over.wait(_PAUSE_S)  # what was written before the end is read after it
            try:
                with self.path.open("rb") as file:  # opened anew each time: a network file system then asks its server for what is new
                    file.seek(at)
                    whole = file.read().rpartition(b"\n")[0]
            except OSError:  # a network file system has such moments, and a training says its result days later
                continue
            at += len(whole) + bool(whole)
            for line in whole.splitlines():
                pods.take(line.decode(errors="replace"))
        pods.end()

    def no_messages_debug_text(self) -> str:
        return f"Attempted to read messages from {self.path}."


class _Pods:
    """Passes on the messages of pods that follow one another as those of one process."""

    def __init__(self, handler: dg.PipesMessageHandler) -> None:
        self.handler = handler
        self.opened = False
        self.closing: PipesMessage | None = None
        self.held: list[PipesMessage] = []

    def take(self, line: str) -> None:
        """A line as it stands in the file; after a torn one the next message stands in the same line."""
        try:
            message: PipesMessage = json.loads(line[max(line.rfind(_BEGIN), 0) :])
        except ValueError:
            return
        match message["method"]:
            case "opened":
                self.held = []
                if not self.opened:
                    self.handler.handle_message(message)
                self.opened = True
            case "closed":
                self.closing = message
                for held in self.held:
                    self.handler.handle_message(held)
                self.held = []
            case "report_custom_message":
                self.held.append(message)
            case _:
                self.handler.handle_message(message)

    def end(self) -> None:
        if self.closing:
            self.handler.handle_message(self.closing)
