"""`petalign train unet`: progress, and what came of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from alignment.commands.cache import parse_bytes
from alignment.commands.console import Bars, err, out, print_json
from alignment.commands.stopping import stop_when_asked
from alignment.learning.segmentation.config import SegmentConfig, parse_segment_config
from alignment.learning.segmentation.order import WorkerLostError
from alignment.learning.segmentation.outcome import described
from alignment.learning.segmentation.train import Row, Watched, train_segmentation
from alignment.verbs.options import file_settings, with_settings
from inference.training.cluster import Place
from inference.training.config import Mode, TrainConfig
from inference.training.files import MODEL
from inference.training.journal import Entry
from storage.store import join, normalise_uri, read_bytes

SAID_EVERY_S = 5.0
"""Between two lines about steps, where no bar is drawn."""


def read_segment_config(path: Path | None, settings: list[str] | None) -> SegmentConfig:
    """Return the settings of a file with the ones of the command line laid over them."""
    before = parse_segment_config(file_settings(path)).model_dump(mode="json")
    laid = with_settings(before, settings)
    if any(item.partition("=")[0] == "training.network.architecture" for item in settings or []):
        # Another architecture has other settings: only those that were named are meant.
        named: dict[str, Any] = with_settings({"training": {"network": {}}}, settings)
        laid["training"]["network"] = named["training"]["network"]
    return parse_segment_config(laid)


def train_unet(
    data: str,
    folder: str,
    config: SegmentConfig,
    *,
    mode: Mode,
    workers: int,
    restarts: int,
    cache: Path | None,
    cache_bytes: str,
    quiet: bool,
    joined: str | None = None,
) -> Row:
    """Train, show how it goes, and return the last row of the table.

    Parameters are those of `train_segmentation`.

    Raises
    ------
    KeyboardInterrupt
        If the system asked to stop before the end.
    """
    place = str(cache.expanduser().resolve()) if cache else None
    with stop_when_asked() as stop, _Display(config.training, quiet=quiet) as display:
        return train_segmentation(
            data, folder, config, mode=mode, workers=workers, restarts=restarts, cache=place,
            cache_bytes=parse_bytes(cache_bytes), watched=display, stop=stop, joined=joined,
        )  # fmt: skip


class _Display(Bars, Watched):
    """A bar of the steps in a terminal, and a line an epoch everywhere.

    Where there is no terminal, a line tells of a step now and then, for an epoch may take long.
    """

    def __init__(self, config: TrainConfig, *, quiet: bool) -> None:
        super().__init__(width=5, quiet=quiet)
        self._said_at = time.monotonic()
        self._bar = self._bars.add_task(
            "steps", total=config.epochs * config.steps_per_epoch, note="starting"
        )

    def entry(self, entry: Entry) -> None:
        """Move the bar, or tell of the step if it is time for a line."""
        if entry.kind != "iteration" or entry.number is None:
            return
        note = f"loss {entry.loss:.4f}  error {entry.error_percent:.1f}%"
        self._bars.update(self._bar, completed=entry.number + 1, note=note)
        now = time.monotonic()
        if not err.is_terminal and not self._quiet and now - self._said_at > SAID_EVERY_S:
            self._said_at = now
            err.print(f"step {entry.number + 1:>6,}  {note}", highlight=False)

    def row(self, row: Row) -> None:
        """Print an epoch."""
        if self._quiet:
            return
        stale = float(row["staleness"])
        self._bars.console.print(
            f"epoch {row['epoch']:>4}  step {int(row['step']):>6,}  loss {float(row['loss']):7.4f}"
            f"  held out: loss {float(row['held_out_loss']):7.4f}, Dice {float(row['dice']):.4f}"
            f" (best {float(row['best']):.4f} at {row['best_epoch']})"
            + (f"  stale by {stale:.1f}, at most {row['most_stale']}" if stale else ""),
            highlight=False,
        )

    def lost(self, place: Place) -> None:
        """Say that a worker is gone."""
        err.print(f"{place} was lost; the others go on", highlight=False)

    def restarted(self, error: WorkerLostError) -> None:
        """Say why all begin again."""
        err.print(f"{error}\nbeginning again from the last checkpoint", markup=False)


def print_trained_unet(folder: str, row: Row, *, as_json: bool) -> None:
    """Print where the best network is, and how good."""
    from inference.model_file import digest

    path = join(folder, MODEL) if "://" in folder else str(Path(folder) / MODEL)
    found = described(path, digest(read_bytes(normalise_uri(path))), row)
    if as_json:
        print_json(found)
        return
    out.print(f"{path}  sha256 {found['sha256']}", highlight=False)
    out.print(
        f"held-out Dice {found['dice']:.4f} after epoch {found['best_epoch']} of "
        f"{found['epochs']}, {found['samples']:,} samples in {found['seconds']:.0f} s of steps",
        highlight=False,
    )
