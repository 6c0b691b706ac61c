"""`petalign study modes`: progress, and what came of it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from alignment.commands.console import Bars, err, out, print_json
from alignment.commands.stopping import stop_when_asked
from alignment.errors import ConfigError
from alignment.learning.segmentation.config import SegmentConfig
from alignment.learning.segmentation.order import WorkerLostError
from alignment.learning.segmentation.train import Row
from alignment.learning.study.grid import Combination, Studied, run_study
from alignment.learning.study.report import Report
from inference.training.cluster import Place
from inference.training.config import TrainConfig
from inference.training.journal import Entry


def whole_numbers(option: str, text: str, *, least: int) -> list[int]:
    """Return the numbers of an option such as ``1,2,3``.

    >>> whole_numbers("--workers", "1, 3", least=1)
    [1, 3]

    Raises
    ------
    ConfigError
        If it has others, or none.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) >= least for word in words):
        raise ConfigError(
            f"{option} {text!r}: expected whole numbers of at least {least}, separated by commas"
        )
    return list(map(int, words))


def study(
    data: str, folder: Path, config: SegmentConfig, grid: Sequence[Combination], *, quiet: bool
) -> None:
    """Train all of a grid, and show how it goes.

    Raises
    ------
    KeyboardInterrupt
        If the system asked to stop before the end.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # it would write across the bars
    with stop_when_asked() as stop, _Display(config.training, len(grid), quiet=quiet) as display:
        run_study(data, folder, config, grid, watched=display, stop=stop)


class _Display(Bars, Studied):
    """Bars of trainings and of their steps in a terminal, and a line a training everywhere."""

    def __init__(self, config: TrainConfig, trainings: int, *, quiet: bool) -> None:
        super().__init__(width=10, quiet=quiet)
        self._all = self._bars.add_task("trainings", total=trainings, note="")
        total = config.epochs * config.steps_per_epoch
        self._one = self._bars.add_task("steps", total=total, note="")
        self._row: Row = {}

    def began(self, combination: Combination) -> None:
        """Begin the bar of its steps."""
        self._row = {}
        self._bars.reset(self._one, description=combination.name, note="starting")

    def entry(self, entry: Entry) -> None:
        """Move the bar of steps."""
        if entry.kind == "iteration" and entry.number is not None:
            note = f"loss {entry.loss:.4f}"
            self._bars.update(self._one, completed=entry.number + 1, note=note)

    def row(self, row: Row) -> None:
        """Keep the last epoch."""
        self._row = row

    def lost(self, place: Place) -> None:
        """Say that a worker is gone."""
        err.print(f"{place} was lost; the others go on", highlight=False)

    def restarted(self, error: WorkerLostError) -> None:
        """Say why all begin again."""
        err.print(f"{error}\nbeginning again from the last checkpoint", markup=False)

    def ended(self, combination: Combination, *, is_new: bool) -> None:
        """Print a training that is finished."""
        self._bars.advance(self._all)
        if self._quiet:
            return
        said = f"{combination.name:<12} was finished before"
        if is_new and self._row:
            row = self._row
            said = (
                f"{combination.name:<12} loss {float(row['loss']):.4f}  held out: loss "
                f"{float(row['held_out_loss']):.4f}, Dice {float(row['dice']):.4f}  "
                f"{int(row['samples']):,} samples in {float(row['seconds']):.0f} s of steps"
            )
        self._bars.console.print(said, markup=False, highlight=False)


def print_study(report: Report, *, as_json: bool) -> None:
    """Print what was written, and what of the grid is missing."""
    if as_json:
        print_json(
            {
                "finished": [each.combination.name for each in report.studied],
                "missing": [each.name for each in report.missing],
                "files": [str(path) for path in report.files],
            }
        )
        return
    for path in report.files:
        out.print(str(path), markup=False, highlight=False)
    if report.missing:
        names = ", ".join(each.name for each in report.missing)
        err.print(f"not finished, and left out: {names}", markup=False)
