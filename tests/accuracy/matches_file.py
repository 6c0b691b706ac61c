"""All matches of a stack with their statistics and true errors, for fitting a confidence on them.

Layout of `<set>-<truth>-<recipe>.npz`; n matches, px are of mip 0, vectors (dy, dx):

- `names` (c,): names of the channels, `match.CHANNELS`; `channels` (n, c) float32: their values.
- `error_dy`, `error_dx` (n,): match minus truth; NaN where no truth exists. For twins the truth is
  exact; for neighbours of real stacks it is the consensus of several matchers on the unwarped
  sections, carried through the warps.
- `change_dy`, `change_dx` (n,): how far the tissue moved by itself between the base images, as the
  truth has it; 0 for twins and the phantom. Error plus change is the error against the warps alone.
- `z`, `d` (n,): moving section and distance, the fixed one is z - d; `i`, `j`: node, at pixel
  (i, j) * `spacing_px` of the common frame. Nodes without a match are not in the file.
- `is_tissue` (n,): both sections show the node's tissue, so a match there is due.
- `valid_distance_px` (n,): from the node to the nearest pixel that the masks of one of the sections
  exclude (or the section's end); 0 in it.
- `defect_distance_px` (n,): to the nearest true fold, crack or blank of the two sections; negative
  inside, inf if neither has one.
- `spacing_px` (): distance of the nodes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from alignment.match import CHANNELS
from tests.accuracy.runner import Outcome


def write_matches(path: Path, outcome: Outcome) -> int:
    """Write the file of one stack; return the number of matches."""
    columns: dict[str, list[np.ndarray]] = {
        name: []
        for name in (
            *("channels", "error_dy", "error_dx", "change_dy", "change_dx", "z", "d", "i", "j"),
            *("is_tissue", "valid_distance_px", "defect_distance_px"),
        )
    }
    for pair in outcome.pairs:
        matched = np.isfinite(pair.matches[0])
        i, j = np.nonzero(matched)
        error = pair.error[:, matched].astype(np.float32)
        change = (pair.truth - pair.as_warped)[:, matched].astype(np.float32)
        rows = (
            *(pair.matches[:, matched].T, *error, *change),
            *(np.full(i.size, pair.z), np.full(i.size, pair.d)),
            *(i, j, pair.is_tissue[matched]),
            *(pair.valid_distance_px[matched], pair.defect_distance_px[matched]),
        )
        for name, values in zip(columns, rows, strict=True):
            columns[name].append(values)
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = {name: np.concatenate(parts) for name, parts in columns.items()}
    np.savez_compressed(path, names=np.array(CHANNELS), spacing_px=outcome.spacing_px, **whole)
    return len(whole["z"])
