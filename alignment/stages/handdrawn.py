"""Masks that a person drew, at the level of the masks that the stage "masks" finds itself."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alignment.attachments import drawn_masks
from alignment.defects import Defect, area_fractions
from alignment.errors import DataError
from alignment.masks import Examination
from alignment.runs import Run
from storage.journal import is_mending

BAND_PX = 512
"""Rows of the mask's level that are read at a time."""


def drawn_section(run: Run, z: int) -> NDArray[np.bool_] | None:
    """Return where something was drawn over section z, bool (ny, nx) at the masks' mip.

    A pixel counts if any of those that it covers at mip 0 does. None if a run has no such masks.

    Raises
    ------
    DataError
        If the drawing is not what it was when the run was made.
    """
    frozen = run.attachments.get("drawn")
    if frozen is None:
        return None
    source = drawn_masks(run.uri, run.config.masks.drawn)
    if not is_mending() and source.fingerprint(z) != frozen["sections"][z]:
        raise DataError(
            f"masks.drawn: section {z} of {run.config.masks.drawn} was changed since the run was "
            "made. Start a new run: sections that did not change are taken over"
        )
    _, ny, nx = run.shape_at(run.config.masks.mip)
    side = 2**run.config.masks.mip
    found = np.zeros((ny, nx), bool)
    for y in range(0, ny, BAND_PX):
        rows = source.read_rows(z, y * side, min((y + BAND_PX) * side, run.shape[1])) > 0
        rows = np.pad(rows, [(0, -n % side) for n in rows.shape])
        blocks = rows.reshape(rows.shape[0] // side, side, rows.shape[1] // side, side)
        found[y : y + BAND_PX] = blocks.any(axis=(1, 3))
    return found


def without(found: Examination, area: NDArray[np.bool_], reason: Defect) -> Examination:
    """Return what was found of a section, without an area that is left out for a further reason."""
    reasons = np.where(area, found.reasons | np.uint8(reason), found.reasons)
    return found._replace(valid=found.valid & ~area, reasons=reasons, areas=area_fractions(reasons))
