"""Resolution pyramid: each mip halves y and x."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.errors import ShapeError

_ROWS = 256
"""Of the result, made at a time: where there is little data, mending takes many times its size."""


def halve(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the next level of an image (nz, ny, nx), whose odd ends have no data beside them."""
    _, ny, nx = image.shape
    if ny % 2 or nx % 2:
        image = np.pad(image, ((0, 0), (0, ny % 2), (0, nx % 2)))
    return downsample(image)


def downsample(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Average each 2 x 2 square of known pixels.

    Parameters
    ----------
    image : uint8 ndarray of shape (nz, ny, nx)
        With even ny and nx; 0 means "no data".

    Returns
    -------
    uint8 ndarray of shape (nz, ny // 2, nx // 2)
        Mean of the known pixels, halves rounded up; 0 only if all four were.

    Raises
    ------
    ShapeError
        If y or x is odd.

    Examples
    --------
    >>> downsample(np.array([[[1, 2, 0, 9], [1, 2, 0, 0]]], np.uint8))
    array([[[2, 9]]], dtype=uint8)
    """
    if image.ndim != 3 or image.shape[1] % 2 or image.shape[2] % 2:
        raise ShapeError(
            f"the image must be (z, y, x) with even y and x, got {image.shape}; "
            "pad the block with zeros"
        )
    nz, ny, nx = image.shape
    result = np.zeros((nz, ny // 2, nx // 2), np.uint8)
    if result.size:
        for section, half in zip(np.ascontiguousarray(image), result, strict=True):
            for y in range(0, len(half), _ROWS):
                rows, halved = section[2 * y : 2 * (y + _ROWS)], half[y : y + _ROWS]
                if rows.any():
                    halved[:] = _halved(rows)
                    if not rows.all():
                        _mend(rows, halved)
    return result


def levels_of_shard(shard: tuple[int, ...], chunk: tuple[int, ...], levels: int) -> int:
    """Return how many levels after mip 0 a shard's own pixels fill with shards of half its side.

    As long as these hold whole chunks, 4 x 4 or more: smaller objects are not worth a request.

    Parameters
    ----------
    shard, chunk : tuple of int
        (z, y, x) at mip 0.
    levels : int
        Of the pyramid, mip 0 included.

    Examples
    --------
    >>> levels_of_shard((32, 2048, 2048), (32, 128, 128), 9)
    2
    """
    filled = 0
    while filled + 1 < levels and all(
        s % (c << filled + 1) == 0 and s >= c << filled + 3
        for s, c in zip(shard[1:], chunk[1:], strict=True)
    ):
        filled += 1
    return filled


def valid_at(
    valid: NDArray[np.bool_], *, old: int, new: int, shape_yx: tuple[int, int]
) -> NDArray[np.bool_]:
    """Express valid pixels at another mip.

    Parameters
    ----------
    valid : bool ndarray of shape (ny, nx)
        At mip `old`.
    old, new : int
        Mips.
    shape_yx : tuple of int
        Of the section at mip `new`.

    Returns
    -------
    bool ndarray of shape `shape_yx`
        At a coarser mip a pixel is valid only if all of it is that lies in the section. A part
        that begins on a pixel of the coarser mip gives the same as it has in the whole section.
    """
    ny, nx = shape_yx
    if new <= old:
        side = 2 ** (old - new)
        return valid.repeat(side, axis=0).repeat(side, axis=1)[:ny, :nx]
    side = 2 ** (new - old)
    beyond = [(0, n * side - have) for n, have in zip(shape_yx, valid.shape, strict=True)]
    squares = np.pad(valid, beyond, constant_values=True).reshape(ny, side, nx, side)
    return np.asarray(squares.all(axis=(1, 3)))


def _halved(section: NDArray[np.uint8]) -> NDArray[np.uint8]:
    # For whole squares OpenCV's integer path is exact: (sum of four + 2) // 4.
    size = (section.shape[1] // 2, section.shape[0] // 2)
    return np.asarray(cv2.resize(section, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _mend(section: NDArray[np.uint8], half: NDArray[np.uint8]) -> None:
    """Average the squares that hold some no data again, over their known pixels only."""
    known = _halved((section != 0).view(np.uint8) * np.uint8(4))
    y, x = np.nonzero((known > 0) & (known < 4))
    count = known[y, x].astype(np.int64)
    total = sum(section[2 * y + dy, 2 * x + dx].astype(np.int64) for dy in (0, 1) for dx in (0, 1))
    half[y, x] = (2 * total + count) // (2 * count)
