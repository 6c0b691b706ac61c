"""How a training stands, and the table of its epochs; known without loading TensorFlow."""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from inference.model_file import replace_file


@dataclass(frozen=True)
class Progress:
    """How training stands, after an epoch; epoch 0 is before the first."""

    epoch: int
    step: int
    """Changes of the weights so far."""
    samples: int
    """That all workers together have learned from."""
    seconds: float
    """That the steps have taken so far, without looks and checkpoints."""
    loss: float
    """Mean over the epoch's steps, each before its change."""
    held_out_loss: float
    held_out_error: float
    """Share of held-out pixels whose class is wrong."""
    dice: float
    """Mean over held-out samples and classes but the background."""
    pooled_dice: float
    """Over all held-out samples at once; mean over classes but the background."""
    best: float
    """Highest `dice` so far."""
    best_epoch: int
    learning_rate: float
    staleness: float
    """Mean number of changes between reading the weights and applying what was learned; 0 where
    workers wait for each other."""
    most_stale: int
    has_ended: bool = False


Tell = Callable[[Progress], None]

SHOWN = (
    "loss", "held_out_loss", "held_out_error", "dice", "pooled_dice", "best", "learning_rate",
    "staleness",
)  # fmt: skip
"""What TensorBoard draws."""


def add_row(path: Path, progress: Progress) -> list[dict[str, str]]:
    """Add a row to the table, after those of earlier steps, and return all rows.

    Rows that a kill has left behind are cut.
    """
    rows = [row for row in read_rows(path) if int(row["epoch"]) < progress.epoch]
    values = {name: str(value) for name, value in asdict(progress).items() if name != "has_ended"}
    rows.append({"at": f"{time.time():.3f}", **values})
    stream = io.StringIO()
    table = csv.DictWriter(stream, list(rows[-1]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    replace_file(path, stream.getvalue().encode())
    return rows


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table; none if there is no file."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
