"""One decoded image as a section: uint8, one channel.

Decisions, the same for every file format:

- Colour becomes luminance by ITU-R BT.601 (0.299 R + 0.587 G + 0.114 B), so a grey image that was
  saved as colour comes back as it was. Pixels that are wholly transparent are 0, "no data".
- Images of which white is the smallest value are inverted.
- 16-bit and float images are refused: which grey values become 0 and 255 decides what can be
  matched, and must be chosen once for the whole stack by who knows the microscope.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from storage.errors import SourceError


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


def padded(image: NDArray[np.uint8], ny: int, nx: int, what: str) -> NDArray[np.uint8]:
    """Return the image in an array (ny, nx), 0 at its bottom and right.

    Raises
    ------
    SourceError
        If the image is larger: its file changed since the source was opened.
    """
    if image.shape == (ny, nx):
        return image
    if image.shape[0] > ny or image.shape[1] > nx:
        raise SourceError(
            f"{what} is {image.shape} px (y, x), larger than the source's {(ny, nx)}; its file "
            "changed since the source was opened"
        )
    canvas = np.zeros((ny, nx), np.uint8)
    canvas[: image.shape[0], : image.shape[1]] = image
    return canvas
