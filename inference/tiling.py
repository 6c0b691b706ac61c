"""Run a network over a large image in overlapping tiles, without a trace of where they meet.

Each tile is read with the margin that its outputs depend on, and begins on a whole pixel of the
network's coarsest level. So an output sees the same pixels, whichever tile it is computed in.
Beyond the image's rim the tiles show its mirror image; the zeros that the network itself adds at
its borders reach no output.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from inference.errors import ShapeError
from inference.model import Predict
from inference.nccnet import Halo

TILE_PX = 1024
"""Side of the tiles' outputs: the margin of the published network makes 1.5 times the work."""


def predict_tiled(
    predict: Predict,
    image: NDArray[np.float32],
    *,
    halo: Halo,
    step_px: int,
    tile_px: int = TILE_PX,
) -> NDArray[np.float32]:
    """Return the features (y, x, channels) of a whole image (y, x).

    Parameters
    ----------
    predict : Predict
        The network. All tiles of an image have one size, so that it is compiled once.
    halo : Halo
        What an output depends on, see `nccnet.halo_px`.
    step_px : int
        Sides of what the network takes are multiples of this, see `NCCNetConfig.step_px`.
    tile_px : int
        Side of a tile's output; rounded up to whole steps. Changes memory and time, not results,
        but for the rounding of float32.

    Raises
    ------
    ShapeError
        If the image is not two-dimensional or empty, or the network returns another size.
    """
    if image.ndim != 2 or not image.size:
        raise ShapeError(f"an image must have shape (y, x) and some pixels, got {image.shape}")
    sides = [_whole(min(tile_px, n), step_px) for n in image.shape]
    before, after = (_whole(margin, step_px) for margin in halo)
    result: NDArray[np.float32] | None = None
    for rows in _tiles(image.shape[0], sides[0]):
        strip = image[mirrored(rows.start - before, rows.start + sides[0] + after, len(image))]
        for columns in _tiles(image.shape[1], sides[1]):
            ends = columns.start - before, columns.start + sides[1] + after
            tile = np.ascontiguousarray(strip[:, mirrored(*ends, image.shape[1])], np.float32)
            features = predict(tile)
            if features.shape[:2] != tile.shape:
                raise ShapeError(
                    f"the network made {features.shape} of {tile.shape}; expected (y, x, channels)"
                )
            if result is None:
                result = np.empty((*image.shape, features.shape[2]), np.float32)
            height, width = rows.stop - rows.start, columns.stop - columns.start
            result[rows, columns] = features[before : before + height, before : before + width]
    assert result is not None  # the image has pixels, so there was a tile
    return result


def _whole(length: int, step: int) -> int:
    """Round up to whole steps."""
    return -(-length // step) * step


def _tiles(length: int, side: int) -> Iterator[slice]:
    """Cut a length into pieces; the last may be shorter."""
    for start in range(0, length, side):
        yield slice(start, min(start + side, length))


def mirrored(start: int, stop: int, length: int) -> NDArray[np.int_]:
    """Return the pixels of an axis that stand at start, ..., stop - 1, mirrored at both its ends.

    >>> mirrored(-2, 6, 4).tolist()
    [2, 1, 0, 1, 2, 3, 2, 1]
    """
    period = max(2 * (length - 1), 1)
    turned = np.arange(start, stop) % period
    return np.minimum(turned, period - turned) if length > 1 else np.zeros_like(turned)
