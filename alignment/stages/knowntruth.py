"""The truth that lies beside a phantom, and how far an alignment is from it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from alignment import report_data
from alignment.qc import residual_summary
from alignment.runs import Run
from alignment.stages import inputs
from alignment.truth import Residuals, Truth, identity_alignment, neighbour_residuals
from storage.store import exists, join
from storage.volume import create_array, open_array


def write_truth(source_uri: str, truth: Truth) -> None:
    """Write which tissue every section of a volume shows, below its ``truth/``."""
    _, _, ny, nx = truth.to_tissue.shape
    about = {"step_px": truth.step_px, "unit": "px at mip 0"}
    for path, values, chunk, names in (
        ("truth/to_tissue", truth.to_tissue, (1, 2, ny, nx), ("z", "dy_dx", "y", "x")),
        ("truth/tissue", truth.tissue.astype(np.uint8), (1, ny, nx), ("z", "y", "x")),
    ):
        array = create_array(
            source_uri,
            path,
            shape=values.shape,
            chunk=chunk,
            dtype=str(values.dtype),
            fill_value=0,
            dimension_names=names,
            attributes=about,
        )
        inputs.write_all(array, values)


def read_truth(source_uri: str) -> Truth | None:
    """Return the truth that lies beside a phantom, or None for real tissue."""
    if not exists(join(source_uri, "truth", "tissue", "zarr.json")):
        return None
    to_tissue = open_array(source_uri, "truth/to_tissue")
    tissue = inputs.read_all(open_array(source_uri, "truth/tissue")).astype(bool)
    return Truth(inputs.read_all(to_tissue), tissue, int(str(to_tissue.attrs["step_px"])))


def measure(run: Run) -> report_data.Truth | None:
    """Return how far neighbouring sections of a run are from the truth; None for real tissue."""
    truth = read_truth(run.source_uri)
    if truth is None:
        return None
    spacing = run.config.relax.node_spacing_px
    fields = inputs.read_all(open_array(run.uri, "fields"))
    after = neighbour_residuals(truth, inputs.coarse(run.uri).matrices, fields, spacing)
    before = neighbour_residuals(truth, *identity_alignment(truth))
    return report_data.Truth(
        "the phantom's own misalignment",
        residual_summary(_adjacent(after)),
        tuple(
            report_data.TruthRow(z, fixed, residual_summary(distances))
            for (z, fixed), distances in zip(after.pairs, after.distance_px, strict=True)
        ),
        residual_summary(_adjacent(before)),
    )


def _adjacent(residuals: Residuals) -> NDArray[np.float32]:
    """Return the distances of neighbouring sections; a pair across a missing one stands alone."""
    found = [
        distances
        for (z, fixed), distances in zip(residuals.pairs, residuals.distance_px, strict=True)
        if z - fixed == 1
    ]
    return np.concatenate([np.empty(0, np.float32), *found])
