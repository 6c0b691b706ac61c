"""Run a workload in a process that may be killed.

Children are forked from a server that has imported everything and used nothing, so one costs some
tens of milliseconds instead of seconds.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

_context: Any = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["pytest", "tests.faults.workload", "tests.faults.disk"])

TIMEOUT_S = 90.0


@dataclass(frozen=True)
class Ended:
    """How a child ended."""

    success: bool
    error: str = ""
    """What it raised, with its notes and causes; empty if it was killed."""
    killed: bool = False
    hung: bool = False
    value: Any = None


@dataclass(frozen=True)
class Child:
    """A process under test."""

    process: BaseProcess
    answer: Connection

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.join()

    def wait(self, timeout_s: float = TIMEOUT_S) -> Ended:
        """Return how it ended; one that takes longer is killed and counts as hung."""
        hung = False
        try:
            if self.answer.poll(timeout_s):
                success, error, value = self.answer.recv()
                self.process.join(10)
                return Ended(success, error, value=value)
            hung = True
        except EOFError:
            pass  # it died without a word
        finally:
            self.process.kill()
            self.process.join()
            self.process.close()
            self.answer.close()
        return Ended(False, killed=not hung, hung=hung)


def start(
    work: Callable[..., Any],
    *args: Any,
    environment: dict[str, str],
    before: Callable[[], None] | None = None,
) -> Child:
    """Start ``work(*args)`` in a child whose environment has `environment` too."""
    answer, theirs = _context.Pipe(duplex=False)
    process = _context.Process(target=_run, args=(theirs, environment, before, work, args))
    process.start()
    theirs.close()
    return Child(process, answer)


def _run(
    answer: Connection,
    environment: dict[str, str],
    before: Callable[[], None] | None,
    work: Callable[..., Any],
    args: tuple[Any, ...],
) -> None:
    from tests.faults.patience import impatient

    os.environ.update(environment)
    logging.disable()
    with impatient():
        try:
            if before is not None:
                before()
            value = work(*args)
        except BaseException as error:
            answer.send((False, "".join(traceback.format_exception(error)), None))
        else:
            answer.send((True, "", value))
    answer.close()
    os._exit(0)  # no finalisers: threads of obstore and zarr may still hold a request that hangs
