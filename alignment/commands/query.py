"""Where a point of the source lies in the aligned volume, and back."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alignment.errors import DataError
from alignment.fields import map_to_aligned, map_to_source
from alignment.runs import Run, load
from alignment.stages import inputs
from storage.publish import read_pointer
from storage.store import exists, join, list_names, normalise_uri
from storage.volume import open_array

Points = NDArray[np.float64]


def find_run(uri: str) -> str:
    """Return the run that `uri` means: a run itself, or a volume's published or only run.

    Raises
    ------
    DataError
        If there is none, or several of which none is published.
    """
    where = normalise_uri(uri)
    if exists(join(where, "run.json")):
        return where
    pointer = read_pointer(where)
    if pointer is not None:
        return join(where, "runs", pointer.run)
    runs = list_names(join(where, "runs"))
    if len(runs) == 1:
        return join(where, "runs", runs[0])
    if not runs:
        raise DataError(
            f"{where} holds no run; expected <volume>/runs/<key>/run.json, or <run>/run.json. "
            "Start one with `petalign align SOURCE VOLUME`."
        )
    raise DataError(
        f"{where} holds {len(runs)} runs and none is published; name one of them: "
        + ", ".join(join(where, "runs", run) for run in runs)
    )


def to_source(run_uri: str, z: int, points: Points) -> Points:
    """Map points (n, 2), (y, x) px at mip 0, of section z of the aligned volume to the source."""
    run = load(run_uri)
    return map_to_source(_matrix(run, z), _field(run, z), run.config.relax.node_spacing_px, points)


def to_aligned(run_uri: str, z: int, points: Points) -> Points:
    """Map points (n, 2), (y, x) px at mip 0, of source section z to the aligned volume."""
    run = load(run_uri)
    return map_to_aligned(_matrix(run, z), _field(run, z), run.config.relax.node_spacing_px, points)


def _matrix(run: Run, z: int) -> Points:
    if not 0 <= z < run.shape[0]:
        raise DataError(f"section {z} does not exist; the run has 0 ... {run.shape[0] - 1}")
    return inputs.coarse(run.uri).matrices[z]


def _field(run: Run, z: int) -> NDArray[np.float32]:
    return inputs.read_row(open_array(run.uri, "fields"), z)
