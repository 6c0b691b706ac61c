"""How far an errand is: the state in its ledger, rewritten while its driver lives."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from storage import ledger
from storage.errors import ConflictError, StorageError

log = logging.getLogger(__name__)

HEARTBEAT_S = 2.0
STOPPED = "stopped from outside, by a user or a second driver"


class Stopped(Exception):
    """The errand is another's now, or a user stopped it; end without a word in the ledger."""


class Progress:
    """The state of one errand; `beating` keeps it fresh, `settle` ends it.

    Parameters
    ----------
    place : str
        The folder whose ``state/`` holds the errand's state.
    errand : str
        Name of the state.
    """

    def __init__(self, place: str, errand: str) -> None:
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._stopped = threading.Event()
        self._lease = ledger.take(place, errand)
        self._began = time.monotonic()
        self.state = replace(
            ledger.StageState(errand, "running"),
            epoch=self._lease.state.epoch,
            holder=self._lease.state.holder,
        )

    def tell(self, done: int, total: int, phase: str = "") -> None:
        """Note how far it is, in things of its own kind; written with the next heartbeat.

        Raises
        ------
        Stopped
            If somebody else holds the errand by now.
        """
        if self._stopped.is_set():
            raise Stopped(STOPPED)
        with self._lock:
            self.state = replace(
                self.state, phase=phase or self.state.phase, blocks_done=done, blocks_total=total
            )

    def settle(
        self, status: ledger.Status, error: str = "", kind: ledger.ErrorKind = "data"
    ) -> None:
        """Write the end of it; nothing that comes later overwrites that."""
        self._ended.set()
        with self._lock:
            self.state = replace(
                self.state,
                status=status,
                error=error or None,
                error_kind=kind if error else None,
            )
            self._write()

    @contextmanager
    def beating(self) -> Iterator[None]:
        """Rewrite the state every `HEARTBEAT_S` until it is settled or the driver goes."""
        with self._lock:
            self._write()
        thread = threading.Thread(target=self._beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_S):
            try:
                with self._lock:
                    if not self._ended.is_set():
                        self._write()
            except ConflictError:
                self._stopped.set()
                return
            except StorageError as error:  # a late heartbeat harms less than none ever after
                log.warning("no heartbeat of errand %s: %s", self.state.stage, error)

    def _write(self) -> None:
        self.state = replace(
            self.state, heartbeat=time.time(), seconds=time.monotonic() - self._began
        )
        self._lease.report(self.state)
