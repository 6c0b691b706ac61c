"""One decoded image as a section: uint8, one channel.

Decisions, the same for every file format:

- Colour becomes luminance by ITU-R BT.601 (0.299 R + 0.587 G + 0.114 B), so a grey image that was
  saved as colour comes back as it was. Pixels that are wholly transparent are 0, "no data".
- Images of which white is the smallest value are inverted.
- 16-bit and float images are refused: which grey values become 0 and 255 decides what can be
  matched, and must be chosen once for the whole stack by who knows the microscope.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from storage.errors import LimitError, SourceError
from storage.grid import ZYX
from storage.limits import check_image_size

MAX_SECTIONS = 2**20


def check_dtype(dtype: DTypeLike | None, what: str) -> None:
    """Refuse what is not 8 bit, with a way out.

    Raises
    ------
    SourceError
        If `dtype` is not uint8.
    """
    if dtype is not None and np.dtype(dtype) == np.uint8:
        return
    found = "an unknown type" if dtype is None else str(np.dtype(dtype))
    raise SourceError(
        f"{what} has {found} pixels; expected uint8. Convert the whole stack with one fixed range "
        "of grey values, for example ImageJ: Image > Adjust > Brightness/Contrast, Set, then "
        "Image > Type > 8-bit"
    )


def to_grey(image: NDArray[Any], what: str, *, white_is_zero: bool = False) -> NDArray[np.uint8]:
    """Return a decoded image as uint8 (y, x).

    Parameters
    ----------
    image : ndarray of shape (y, x) or (y, x, channels)
        Channels are grey, grey + alpha, RGB, or RGB + alpha.
    white_is_zero : bool
        Invert.

    Raises
    ------
    SourceError
        If the image is not 8 bit or has another number of axes or channels.
    """
    check_dtype(image.dtype, what)
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if image.ndim == 2:
        return np.asarray(255 - image if white_is_zero else image, dtype=np.uint8)
    if image.ndim != 3 or image.shape[2] not in (2, 3, 4):
        raise SourceError(
            f"{what} has the shape {image.shape}; expected (y, x), or (y, x, channels) with 1 to 4 "
            "channels"
        )
    if image.shape[2] == 2:
        grey = image[:, :, 0]
    else:
        red, green, blue = (image[:, :, i].astype(np.uint32) for i in range(3))
        # Weights of 2**14 parts whose sum is 2**14: R = G = B comes back exactly.
        grey = ((4899 * red + 9617 * green + 1868 * blue + 8192) >> 14).astype(np.uint8)
    if image.shape[2] in (2, 4):
        grey = np.where(image[:, :, -1] == 0, 0, grey)
    return np.asarray(grey, dtype=np.uint8)


def check_shape(shape: ZYX, what: str) -> None:
    """Refuse a stack of an absurd size, before anything is made for each of its sections.

    Raises
    ------
    SourceError
        If it has no voxel, or more than `storage.limits` and `MAX_SECTIONS` allow.
    """
    nz, ny, nx = shape
    if not 0 < nz <= MAX_SECTIONS:
        raise SourceError(f"{what} has {nz} sections; expected 1 to {MAX_SECTIONS}")
    try:
        check_image_size(ny, nx, where=what, streamed=True)
    except LimitError as error:
        raise SourceError(str(error)) from None


def check_band(shape: ZYX, z: int, y0: int, y1: int, what: str) -> None:
    """Refuse rows that a source does not have.

    Raises
    ------
    SourceError
        If there is no section `z`, or [y0, y1) is empty or leaves it.
    """
    nz, ny, _ = shape
    if not 0 <= z < nz:
        raise SourceError(f"{what} has the sections 0 to {nz - 1}; got {z}")
    if not 0 <= y0 < y1 <= ny:
        raise SourceError(f"{what} has the rows 0 to {ny - 1}; got [{y0}, {y1})")


def place_rows(
    shape: ZYX,
    size: tuple[int, int],
    y0: int,
    y1: int,
    read: Callable[[int, int], NDArray[np.uint8]],
    what: str,
) -> NDArray[np.uint8]:
    """Return rows [y0, y1) of an image of `size` in a source of `shape`.

    Parameters
    ----------
    shape : tuple of int
        (nz, ny, nx) of the source; what the image lacks at its bottom and right is 0.
    size : tuple of int
        (ny, nx) of the image.
    read : callable
        ``read(a, b)`` returns rows [a, b) of the image.

    Raises
    ------
    SourceError
        If the image is larger: its file changed since the source was opened.
    """
    if size[0] > shape[1] or size[1] > shape[2]:
        raise SourceError(
            f"{what} is {size} px (y, x), larger than the source's {tuple(shape[1:])}; its file "
            "changed since the source was opened"
        )
    end = min(y1, size[0])
    if y0 < end and (end, size[1]) == (y1, shape[2]):
        return read(y0, y1)
    rows = np.zeros((y1 - y0, shape[2]), np.uint8)
    if y0 < end:
        rows[: end - y0, : size[1]] = read(y0, end)
    return rows
