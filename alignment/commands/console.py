"""What a person at a terminal sees: progress, results, and errors as exit codes."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from alignment.errors import AlignmentError, ConfigError, DataError, StageFailed
from alignment.stages.order import ORDER
from storage.errors import MissingError, SourceError, StorageError, UriError
from storage.ledger import StageState

OK, OTHER, BAD_CONFIG, BAD_INPUT, PARTIAL, DAMAGED = 0, 1, 2, 3, 4, 5
"""Exit codes: done; anything else; a setting; the input; stopped, and what is finished is kept;
stored objects are damaged."""

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print one JSON document to standard output, and nothing else."""
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")


@contextmanager
def exit_codes(*, hint: str = "") -> Iterator[None]:
    """Turn the errors of a command into one clear message and its exit code."""
    try:
        yield
    except (ConfigError, UriError) as error:
        _stop(error, BAD_CONFIG)
    except (DataError, SourceError, MissingError) as error:
        _stop(error, BAD_INPUT)
    except StageFailed as error:
        _stop(error, PARTIAL, hint)
    except KeyboardInterrupt:
        _stop("interrupted; what is finished is kept", PARTIAL, hint)
    except (AlignmentError, StorageError) as error:
        _stop(error, OTHER, hint)


def _stop(message: object, code: int, hint: str = "") -> None:
    err.print(f"[bold red]petalign:[/] {_plain(message)}")
    if hint:
        err.print(hint)
    raise typer.Exit(code) from None


def _plain(message: object) -> str:
    return str(message).replace("[", r"\[")


class Bars:
    """Bars in a terminal, each with a note behind it; elsewhere nothing is drawn."""

    def __init__(self, *, width: int = 9, quiet: bool = False) -> None:
        self._quiet = quiet
        self._bars = Progress(
            TextColumn(f"{{task.description:<{width}}}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=err,
            disable=quiet or not err.is_terminal,
        )

    def __enter__(self) -> Self:
        """Start drawing."""
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the last picture on the screen."""
        self._bars.stop()


class StageDisplay(Bars):
    """A line a stage: a moving bar in a terminal, one printed line when it is done elsewhere."""

    def __init__(self, *, quiet: bool = False) -> None:
        super().__init__(quiet=quiet)
        self._started = time.monotonic()
        self._told: set[str] = set()
        self._rows: dict[str, Any] = {}

    def tell(self, state: StageState) -> None:
        """Show the state of a stage."""
        if state.stage not in self._rows:
            self._rows[state.stage] = self._bars.add_task(state.stage, total=None, note="")
        self._bars.update(
            self._rows[state.stage],
            completed=state.blocks_done,
            total=state.blocks_total or None,
            note="" if state.status == "running" else state.status,
        )
        if state.is_settled:
            self._bars.stop_task(self._rows[state.stage])
            if self._bars.disable and not self._quiet and state.stage not in self._told:
                self._told.add(state.stage)
                place = ""
                if state.stage in ORDER:
                    place = f"[{ORDER.index(state.stage) + 1:2}/{len(ORDER)}] "
                n = state.blocks_reused
                reused = f" ({n} of them as in the published run)" if n else ""
                err.print(
                    f"{place}{state.stage:<9} {state.status}: "
                    f"{state.blocks_done} units{reused}, {state.seconds:.1f} s",
                    markup=False,
                )


@contextmanager
def counter(verb: str, *, of: str = "sections") -> Iterator[Callable[[int, int], None]]:
    """Give a function that shows how many sections, or things of another kind, are done."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TextColumn(of),
        TimeElapsedColumn(),
        console=err,
        disable=not err.is_terminal,
    ) as bars:
        task = bars.add_task(verb, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


@contextmanager
def steps(*, quiet: bool = False) -> Iterator[Callable[[str, int, int], None]]:
    """Give a function that shows how much is done of how much, a line a step."""
    with Progress(
        TextColumn("{task.description:<9}"),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
        disable=quiet or not err.is_terminal,
    ) as bars:
        rows: dict[str, Any] = {}

        def tell(step: str, done: int, total: int) -> None:
            if step not in rows:
                rows[step] = bars.add_task(step, total=total)
            bars.update(rows[step], completed=done, total=total)

        yield tell
