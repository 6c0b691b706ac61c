"""What the trainings of a study have written, as curves and as one tidy table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.errors import DataError
from alignment.learning.study.grid import DONE, RUNS, Combination
from inference.model_file import replace_file
from inference.training.config import MODES, Mode
from inference.training.files import LOG
from inference.training.progress import read_rows

TABLE = "study.csv"

COLUMNS = {
    "epoch": "epoch", "step": "step", "samples": "samples", "seconds": "seconds", "loss": "loss",
    "held_out_loss": "held_out_loss", "held_out_error": "held_out_error", "dice": "held_out_dice",
    "staleness": "staleness",
}  # fmt: skip
"""Of a training's table, and what the study calls them."""

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Curves:
    """One finished training: a value for each epoch; epoch 0 is before the first step."""

    combination: Combination
    values: dict[str, Values]
    """By the names of the study's table."""
    done: dict[str, Any]
    """What the training left at its end."""

    @property
    def kind(self) -> Kind:
        """What it shares with the trainings of other seeds."""
        return self.combination.mode, self.combination.workers


Kind = tuple[Mode, int]
"""Mode and number of workers."""


def read_study(folder: Path) -> list[Curves]:
    """Return the finished trainings of a study: by mode, workers and seed.

    Raises
    ------
    DataError
        If there is none.
    """
    runs = folder / RUNS
    done = [path.parent for path in runs.glob(f"*/{DONE}")]
    if not done:
        raise DataError(f"{runs} has no finished training; run the study first")

    def order(curves: Curves) -> tuple[int, int, int]:
        mode, workers, seed = curves.combination
        return MODES.index(mode), workers, seed

    return sorted(map(_read, done), key=order)


def _read(place: Path) -> Curves:
    rows = read_rows(place / LOG)
    if len(rows) < 2:
        raise DataError(
            f"{place / LOG} has {len(rows)} rows, and a finished training at least 2; remove "
            f"{place} and run the study again"
        )
    values = {ours: np.array([float(r[theirs]) for r in rows]) for theirs, ours in COLUMNS.items()}
    return Curves(Combination.of(place.name), values, json.loads((place / DONE).read_text()))


def by_kind(studied: Iterable[Curves]) -> dict[Kind, list[Curves]]:
    """Return the trainings of each mode and number of workers, in the given order."""
    found: dict[Kind, list[Curves]] = {}
    for each in studied:
        found.setdefault(each.kind, []).append(each)
    return found


def name_of(kind: Kind) -> str:
    """Return the name of a mode with its number of workers.

    >>> name_of(("sync", 3)), name_of(("local", 1))
    ('sync-3', 'local')
    """
    mode, workers = kind
    return mode if mode == "local" else f"{mode}-{workers}"


def write_table(folder: Path, studied: Iterable[Curves]) -> None:
    """Write the tidy table: a row for each epoch of each training."""
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow([*Combination._fields, *COLUMNS.values()])
    for each in studied:
        for row in zip(*each.values.values(), strict=True):
            table.writerow([*each.combination, *map(_shown, row)])
    replace_file(folder / TABLE, stream.getvalue().encode())


def _shown(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.10g}"
