"""Random patches of a volume for training: always the same ones, for any number of workers.

Patch n of a seed lies at a corner that is a function of (seed, n) alone, by a counter-based
generator. Worker w of k takes the patches w, w + k, w + 2k ...: all workers together see the same
sequence whatever their number, and training goes on at any step without replaying those before.

What reads the voxels is given as a function, so that nothing here knows of storage.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import tensorflow as tf

ZYX = tuple[int, int, int]

PATCH = (18, 160, 160)
"""Size (z, y, x): 160 x 160 x 18 in the order x, y, z."""


class PatchError(ValueError):
    """No patch of this size fits, or the workers are numbered wrongly."""


class ReadPatch(Protocol):
    """Returns the voxels [corner, corner + patch) of a volume, uint8 (z, y, x)."""

    def __call__(self, step: int, corner: ZYX) -> NDArray[np.uint8]:
        """Read the patch that this worker needs as its `step`-th, counted from 0."""


@dataclass(frozen=True)
class PatchOrder:
    """Which patches of a volume one worker sees, in which order.

    >>> whole = PatchOrder((100, 1000, 1000), seed=7)
    >>> half = PatchOrder((100, 1000, 1000), seed=7, worker=1, workers=2)
    >>> half.corner(0) == whole.corner(1), half.corner(3) == whole.corner(7)
    (True, True)

    Raises
    ------
    PatchError
        If the volume is smaller than a patch, or there is no such worker.
    """

    shape: ZYX
    """Of the volume, (z, y, x)."""
    patch: ZYX = PATCH
    seed: int = 0
    worker: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        """Check what the fields promise each other."""
        if any(not 0 < p <= n for p, n in zip(self.patch, self.shape, strict=True)):
            raise PatchError(f"no patch of {self.patch} fits into a volume of {self.shape} (z y x)")
        if not 0 <= self.worker < self.workers:
            raise PatchError(
                f"worker {self.worker} of {self.workers}; expected 0 <= worker < workers"
            )

    def corner(self, step: int) -> ZYX:
        """Return the first voxel of this worker's patch number `step`; uniform over all corners."""
        philox = np.random.Philox(key=self.seed, counter=step * self.workers + self.worker)
        # The raw stream never changes with numpy's version; scaled, it is uniform to 2**-40.
        draws = philox.random_raw(3)
        z, y, x = (
            int(draw) * (n - p + 1) >> 64
            for draw, n, p in zip(draws, self.shape, self.patch, strict=True)
        )
        return z, y, x

    def corners(self, start: int = 0) -> Iterator[ZYX]:
        """Yield the corners of patch `start` and all after it, without end."""
        step = start
        while True:
            yield self.corner(step)
            step += 1


def patch_dataset(
    order: PatchOrder,
    read: ReadPatch,
    *,
    batch: int,
    start: int = 0,
    dtype: Literal["uint8", "float32"] = "uint8",
    readers: int = 2,
) -> tf.data.Dataset:
    """Return an endless dataset of batches (batch, z, y, x) in the order of `order`.

    Parameters
    ----------
    read : ReadPatch
        Called in `readers` threads at a time; what it raises ends the iteration.
    start : int
        The patch to begin with: training that stopped after `n` batches goes on with n * batch.
    dtype : {"uint8", "float32"}
        float32 is scaled to 0..1.

    Raises
    ------
    ImportError
        If TensorFlow is not installed.
    """
    try:
        import tensorflow as tf
    except ImportError as error:
        raise ImportError("training needs TensorFlow: pip install 'petalign[train]'") from error

    def load(step: Any) -> NDArray[np.uint8]:
        return np.ascontiguousarray(read(int(step), order.corner(int(step))), dtype=np.uint8)

    def patch(step: Any) -> Any:
        voxels = tf.numpy_function(load, [step], tf.uint8, stateful=False)
        voxels.set_shape(order.patch)
        return voxels if dtype == "uint8" else tf.cast(voxels, tf.float32) / 255.0

    steps = tf.data.Dataset.range(start, np.iinfo(np.int64).max)
    # Deterministic: faster patches wait for slower ones before them.
    patches = steps.map(patch, num_parallel_calls=readers, deterministic=True)
    return patches.batch(batch, drop_remainder=True).prefetch(2)
