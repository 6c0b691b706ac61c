"""Folders of pictures and their masks, of any size and colour, as a labelled volume.

Each picture becomes a section. Masks in colours become grey as pictures do, for example 38 for the
dark red and 75 for the dark green of the palette that many tools draw classes with: these are the
values for `data.label_values`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.errors import DataError
from alignment.runs import DEFAULT_RESOLUTION_NM
from storage.grid import Box
from storage.store import join, normalise_uri
from storage.volume import create_image, write

SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg")
SHARD_PX = 512


def import_pictures(
    images: Path,
    labels: Path,
    place: str,
    size_px: tuple[int, int],
    *,
    tell: Callable[[int, int], None] = lambda _done, _all: None,
) -> int:
    """Write pictures and masks of the same names as ``images`` and ``labels`` below a place.

    Parameters
    ----------
    size_px : tuple of int
        (y, x) to which all are brought: pictures by the mean over areas, masks by the nearest
        pixel, so that their values stay.

    Returns
    -------
    int
        How many there are.

    Raises
    ------
    DataError
        If a picture has no mask, or cannot be read.
    """
    names = sorted(path.name for path in images.iterdir() if path.suffix.lower() in SUFFIXES)
    masks = {path.stem: path for path in labels.iterdir() if path.suffix.lower() in SUFFIXES}
    without = [name for name in names if Path(name).stem not in masks]
    if without or not names:
        raise DataError(
            f"{images}: {len(names)} pictures, of which {len(without)} have no mask of the same "
            f"name in {labels}, such as {', '.join(without[:3]) or 'none'}"
        )
    ny, nx = size_px
    side = min(SHARD_PX, -(-max(size_px) // 16) * 16)
    (written_images,), (written_labels,) = (
        create_image(
            join(normalise_uri(place), name), shape=(len(names), ny, nx), chunk=(1, side, side),
            shard=(1, side, side), resolution_nm=DEFAULT_RESOLUTION_NM, mips=1, name=name,
        )
        for name in ("images", "labels")
    )  # fmt: skip
    for z, name in enumerate(names):
        box = Box((z, 0, 0), (z + 1, ny, nx), 0)
        write(written_images, box, _resized(images / name, size_px, cv2.INTER_AREA))
        mask = masks[Path(name).stem]
        write(written_labels, box, _resized(mask, size_px, cv2.INTER_NEAREST_EXACT))
        tell(z + 1, len(names))
    return len(names)


def _resized(path: Path, size_px: tuple[int, int], how: int) -> NDArray[np.uint8]:
    image = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if image is None:
        raise DataError(f"{path} cannot be read as a picture; remove it and its mask, or mend it")
    resized = cv2.resize(image, size_px[::-1], interpolation=how)
    return np.asarray(resized, np.uint8)[np.newaxis]
