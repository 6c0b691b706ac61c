"""Ending at a good moment when the system asks for it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def stop_when_asked() -> Iterator[Callable[[], bool]]:
    """Give a function that says whether SIGTERM has come.

    Before it is called for the first time nobody would see it, so the signal interrupts like
    Ctrl-C then; the second one always does.
    """
    heard, is_watched = threading.Event(), threading.Event()

    def hear(_number: int, _frame: FrameType | None) -> None:
        if heard.is_set() or not is_watched.is_set():
            raise KeyboardInterrupt
        heard.set()

    def must_stop() -> bool:
        is_watched.set()
        return heard.is_set()

    if threading.current_thread() is not threading.main_thread():  # where signals do not arrive
        yield must_stop
        return
    before = signal.signal(signal.SIGTERM, hear)
    try:
        yield must_stop
    finally:
        signal.signal(signal.SIGTERM, before)
