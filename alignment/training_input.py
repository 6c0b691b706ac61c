"""Training straight from a volume in object storage: patches, through the cache, fetched ahead.

The patches are those of `inference.patches`; the voxels come through `storage.cache`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from inference.patches import ZYX, PatchOrder, patch_dataset
from storage.cache import BlockCache
from storage.cache.arrays import cached
from storage.cache.prefetch import Prefetch
from storage.grid import Box
from storage.volume import Array, read

if TYPE_CHECKING:
    import tensorflow as tf


@contextmanager
def training_input(
    array: Array,
    order: PatchOrder,
    *,
    batch: int,
    start: int = 0,
    dtype: Literal["uint8", "float32"] = "uint8",
    readers: int = 2,
    cache: BlockCache | None = None,
    window_bytes: int = 2**28,
) -> Iterator[tf.data.Dataset]:
    """Give an endless dataset of batches of patches; see `inference.patches.patch_dataset`.

    Parameters
    ----------
    array : Array
        uint8 (z, y, x), opened by `storage.volume`.
    cache : BlockCache, optional
        Read through it, and fetch the patches of the next steps into it, `window_bytes` ahead at
        most. Without it every patch is read when it is needed.

    Examples
    --------
    ::

        array = open_array(f"{run_uri}/aligned", "0")
        cache = open_cache("/scratch/cache", 200 * 2**30)
        order = PatchOrder(array.shape, seed=1, worker=rank, workers=size)
        with training_input(array, order, batch=8, cache=cache) as patches:
            model.fit(patches, steps_per_epoch=1000)
    """
    if cache is not None:
        array = cached(array, cache)
    with ExitStack() as stack:
        ahead = None
        if cache is not None:
            boxes = (_box(corner, order.patch) for corner in order.corners(start))
            ahead = stack.enter_context(Prefetch(array, boxes, window_bytes=window_bytes))
        yield patch_dataset(
            order,
            _Reader(array, order.patch, start, ahead),
            batch=batch,
            start=start,
            dtype=dtype,
            readers=readers,
        )


@dataclass(frozen=True)
class _Reader:
    """Reads a patch and tells the prefetch that it was read."""

    array: Array
    patch: ZYX
    start: int
    ahead: Prefetch | None

    def __call__(self, step: int, corner: ZYX) -> NDArray[np.uint8]:
        """Return the voxels of the patch."""
        voxels = read(self.array, _box(corner, self.patch))
        if self.ahead is not None:
            self.ahead.done(step - self.start)
        return voxels


def patches(array: Array, order: PatchOrder, n: int, start: int = 0) -> Iterator[NDArray[Any]]:
    """Yield `n` patches without TensorFlow, in the same order."""
    for corner in islice(order.corners(start), n):
        yield read(array, _box(corner, order.patch))


def _box(corner: ZYX, patch: ZYX) -> Box:
    return Box(corner, tuple(c + p for c, p in zip(corner, patch, strict=True)), mip=0)
