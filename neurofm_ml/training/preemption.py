"""Being asked to stop: SIGTERM is noted, and the loop leaves at the next safe point."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def stop_requests() -> Iterator[Callable[[], bool]]:
    """Gives a function that says whether SIGTERM has arrived; the former handler returns on leaving.

    Only the main thread of a process can listen to signals; in any other, no request is ever seen.
    """
    requested = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield requested.is_set
        return
    former = signal.signal(signal.SIGTERM, lambda *_: requested.set())
    try:
        yield requested.is_set
    finally:
        signal.signal(signal.SIGTERM, former)
