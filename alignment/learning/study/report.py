"""What is left of a study: one table, pictures, and a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from alignment.learning.study.collect import TABLE, Curves, read_study, write_table
from alignment.learning.study.grid import Combination
from alignment.learning.study.plots import draw_study
from alignment.learning.study.words import PAGE, page
from inference.model_file import replace_file


class Report(NamedTuple):
    """What was written, and of what."""

    studied: list[Curves]
    missing: list[Combination]
    """That were asked for and are not finished."""
    files: list[Path]


def report_study(folder: Path, grid: Sequence[Combination] = ()) -> Report:
    """Write table, pictures and page of all finished trainings of a study.

    Parameters
    ----------
    grid : sequence of Combination
        What was asked for; the page says what of it is missing.

    Raises
    ------
    DataError
        If no training is finished.
    """
    studied = read_study(folder)
    there = {each.combination for each in studied}
    missing = [each for each in grid if each not in there]
    write_table(folder, studied)
    pictures = draw_study(folder, studied)
    replace_file(folder / PAGE, page(studied, missing).encode())
    return Report(studied, missing, [folder / TABLE, *pictures, folder / PAGE])
