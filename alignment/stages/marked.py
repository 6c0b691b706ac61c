"""What a network of one's own marks in a section; by the engine, in overlapping patches."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from alignment.attachments import defect_network
from alignment.errors import ConfigError
from alignment.runs import Run
from inference.backends.files import on_engine
from inference.errors import BackendError, ModelError
from inference.network import ZYX, PatchNetwork
from inference.overlap import PatchGrid, predict_block
from inference.tiling import mirrored

MARGIN: ZYX = (0, 64, 64)
"""At either side of a patch, seen and cropped: half the field of view of a U-Net of four levels, 44
px, and some."""
_SIDE_PX = 512
"""Of a patch, at most, margins included."""
_ROUND_PX = 32
"""Sides of patches are multiples of this, so that networks can halve them."""


def marked_section(run: Run, image: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    """Return what the run's network marks in a section at the masks' mip; None without a network.

    Raises
    ------
    ConfigError
        If the engine cannot run the network over single sections.
    DataError
        If it is not what it was when the run was made.
    """
    sha256 = run.attachments.get("defects")
    if sha256 is None:
        return None
    config = run.config.masks
    try:
        return mark(_network(config.network, sha256), image, config.network_above)
    except (BackendError, ModelError) as error:
        raise ConfigError(f"masks.network: {config.network}: {error}") from None


def mark(network: PatchNetwork, image: NDArray[np.uint8], above: float) -> NDArray[np.bool_]:
    """Return where a network gives more than `above` for a class beside the background.

    Beyond its rim the image goes on as its mirror image, as in training.

    Raises
    ------
    ModelError
        If the network does not take single sections, or takes off more than the margin.
    """
    ny, nx = image.shape
    shape: ZYX = (1, ny, nx)
    grid = patch_grid(network, shape)
    (_, y0, x0), (_, y1, x1) = grid.needed((0, 0, 0), shape)
    voxels = image[np.ix_(mirrored(y0, y1, ny), mirrored(x0, x1, nx))][np.newaxis]
    found = predict_block(
        network,
        voxels,
        grid,
        (0, 0, 0),
        shape,
        channels=network.channels,
        scale=lambda grey: grey.astype(np.float32) / np.float32(255),
        encode=lambda values: values > np.float32(above),
        dtype=np.bool_,
    )
    classes = found[1:] if network.channels > 1 else found  # of several the first is background
    return np.asarray(classes[:, 0].any(axis=0))


def patch_grid(network: PatchNetwork, shape: ZYX) -> PatchGrid:
    """Return the patches by which a network goes over a section of (1, y, x); errors as `mark`."""
    patch = network.patch or (1, _side(shape[1]), _side(shape[2]))
    if patch[0] != 1:
        raise ModelError(
            f"it takes patches of {patch[0]} sections, and masks are found section by section; "
            "train a network of images"
        )
    return PatchGrid(patch, MARGIN, "valid", network.shrink(patch))


def _side(length_px: int) -> int:
    return min(_SIDE_PX, -(-length_px // _ROUND_PX) * _ROUND_PX + 2 * MARGIN[1])


@lru_cache(maxsize=1)
def _network(uri: str, sha256: str) -> PatchNetwork:
    """Load a network once in a process."""
    return on_engine(defect_network(uri, sha256), shrink=MARGIN)
