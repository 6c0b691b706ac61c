"""What a network is to the rest: an array of patches in, an array of patches out.

A backend (`inference.backends`) makes one from a model's file. Nothing here knows which library
computes it, so that a faster engine takes the place of another without a change elsewhere.
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

ZYX = tuple[int, int, int]
Backend = Literal["engine", "keras"]
Tile = Literal[1, 2, 4, 6]
"""Side of the output tiles of the engine's Winograd kernels, at most; 1: only direct sums."""


class PatchNetwork(Protocol):
    """Maps patches of a volume to some values a voxel; the same patch gives the same bytes."""

    @property
    def digest(self) -> str:
        """Of the model's file, 64 hex digits: two networks of one digest are the same."""

    @property
    def backend(self) -> Backend:
        """What computes it."""

    @property
    def isa(self) -> str:
        """The vectors of the engine's kernels, which its rounding depends on; else empty."""

    @property
    def patch(self) -> ZYX | None:
        """Size (z, y, x) of the patches that it takes; None if it takes any."""

    @property
    def channels(self) -> int:
        """Values a voxel that it gives."""

    def shrink(self, patch: ZYX) -> ZYX:
        """Return by how many voxels its output is smaller than a patch, at either side of an axis.

        Raises
        ------
        ModelError
            If it does not take patches of this size.
        """

    def working_bytes(self, patch: ZYX, batch: int = 1) -> int:
        """Return the memory that it takes for a batch beside the model as it is read, at most."""

    def __call__(self, patches: NDArray[np.float32]) -> NDArray[np.float32]:
        """Map patches (batch, z, y, x, channel) to (batch, z', y', x', channels), float32."""
