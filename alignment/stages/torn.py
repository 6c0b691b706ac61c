"""Where the sections of a run tear: what the stage "relax" reads of the masks."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alignment.fields import node_grid
from alignment.runs import Run
from alignment.stages import inputs
from alignment.stages.units import Ref
from alignment.tearing import torn_cells
from storage.volume import open_array


def torn_section(run: Run, z: int) -> NDArray[np.float32]:
    """Return the factor on the stiffness of every cell (ny - 1, nx - 1) of section z.

    1 everywhere for a missing section: it is interpolated, and has no tissue of its own.
    """
    placed, spacing = inputs.coarse(run.uri), run.config.relax.node_spacing_px
    ny, nx = node_grid(placed.canvas, spacing)
    if z in inputs.missing(run.uri):
        return np.ones((ny - 1, nx - 1), np.float32)
    defects = inputs.read_row(open_array(run.uri, "defects"), z)
    return torn_cells(defects, placed.matrices[z], placed.canvas, spacing, mip=run.config.masks.mip)


def reads_torn(run: Run, z: int) -> list[Ref | str]:
    """Return what `torn_section` reads, as inputs."""
    if z in inputs.missing(run.uri):
        return []
    return [inputs.masked(z), *inputs.place_facts(run.uri, z)]
