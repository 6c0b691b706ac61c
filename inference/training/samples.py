"""Labelled samples of a volume: functions of their number alone, dealt out to workers in order.

Sample n of a seed is the same whoever draws it. In step k, worker w of W takes the samples
``(k W + w) b`` to ``(k W + w + 1) b - 1`` of a batch of b: all workers together see what one worker
of batch W b would, and training goes on at any step without replaying those before.

What reads the voxels is given as a function, so that nothing here knows of storage.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from inference.errors import TrainingError
from inference.pair_samples import random_of
from inference.tiling import mirrored
from inference.training.augment import varied
from inference.training.config import TrainConfig

ZYX = tuple[int, int, int]

AHEAD = 4
"""Batches that are made before they are asked for."""
READERS = 2
"""Threads that make them."""
TRIES = 64
"""Draws until a sample shows more than background, if it must."""
_TRAINING, _HELD_OUT, _ORDER = 1, 2, 3


class ReadLabelled(Protocol):
    """Returns image and labels of a box inside the volume, uint8 (z, y, x)."""

    def __call__(self, start: ZYX, stop: ZYX) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Read the voxels [start, stop)."""


class Batch(NamedTuple):
    """What a network is given, and what it should make of it."""

    images: NDArray[np.float32]
    """(n, [z,] y, x, 1), 0 to 1."""
    labels: NDArray[np.int32]
    """(n, [z,] y', x'), smaller by what the network takes off."""


@dataclass(frozen=True)
class Samples:
    """Samples of some sections of a volume.

    Raises
    ------
    TrainingError
        If the volume is smaller than a sample.
    """

    read: ReadLabelled
    shape: ZYX
    """Of the volume."""
    sections: Sequence[int]
    """First sections that a sample may have, to train on; each comes up once in as many samples."""
    held_out_sections: Sequence[int]
    """Likewise, to judge by."""
    config: TrainConfig

    def __post_init__(self) -> None:
        """Check that samples fit."""
        inside = self._inside
        names = ("sections", "held_out_sections")
        if any(p > n for p, n in zip(inside, self.shape, strict=True)):
            raise TrainingError(
                f"a sample of {inside} px (z, y, x) does not fit into a volume of {self.shape}; "
                "lower training.patch_px"
                + ("" if self.config.borders == "mirror" else ", or set training.borders=mirror")
            )
        for name in names:
            if not len(getattr(self, name)):
                raise TrainingError(
                    f"{name} is empty: of {self.shape[0]} sections none are left; change "
                    "data.held_out"
                )

    @property
    def _inside(self) -> ZYX:
        """Size of what must lie in the volume."""
        config = self.config
        return config.patch_px if config.borders == "mirror" else config.window_px

    def training(self, number: int) -> Batch:
        """Return a training sample, varied."""
        epoch, at = divmod(number, len(self.sections))
        order = random_of(self.config.seed, _ORDER, epoch).permutation(len(self.sections))
        for attempt in range(TRIES):
            random = random_of(self.config.seed, _TRAINING, number, attempt)
            image, labels = self._drawn(int(self.sections[order[at]]), random)
            image, labels = varied(image, labels, self.config.augment, random)
            sample = self._cut(image, labels)
            if not self.config.only_labelled or sample.labels.any():
                break
        return sample

    def held_out(self) -> Iterator[Batch]:
        """Yield the samples that judge, as they are, always the same."""
        for number in range(self.config.held_out):
            z = int(self.held_out_sections[number % len(self.held_out_sections)])
            for attempt in range(TRIES):
                random = random_of(self.config.seed, _HELD_OUT, number, attempt)
                sample = self._cut(*self._drawn(z, random))
                if not self.config.only_labelled or sample.labels.any():
                    break
            yield sample

    def _drawn(
        self, z: int, random: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Read a window anywhere in sections z and after."""
        inside, window = self._inside, self.config.window_px
        corner = (
            z,
            *(
                int(random.integers(n - p + 1))
                for n, p in zip(self.shape[1:], inside[1:], strict=True)
            ),
        )
        first = [c - (w - p) // 2 for c, w, p in zip(corner, window, inside, strict=True)]
        places = [mirrored(a, a + w, n) for a, w, n in zip(first, window, self.shape, strict=True)]
        (y, y_stop), (x, x_stop) = ((int(at.min()), int(at.max()) + 1) for at in places[1:])
        image, labels = self.read((z, y, x), (z + window[0], y_stop, x_stop))
        at = np.ix_(range(window[0]), places[1] - y, places[2] - x)
        return image[at].astype(np.float32) / np.float32(255), labels[at]

    def _cut(self, image: NDArray[np.float32], labels: NDArray[np.uint8]) -> Batch:
        """Give image and labels the shapes that the network takes and makes."""
        edges = zip(self.config.network.shrink_px, labels.shape, strict=True)
        inner = labels[tuple(slice(q, n - q) for q, n in edges)].astype(np.int32)
        classes = self.config.network.classes
        if inner.size and inner.max() >= classes:
            raise TrainingError(
                f"a label is {inner.max()}, and the network has {classes} classes, 0 to "
                f"{classes - 1}; set training.network.classes, or data.classes to the labels that "
                "count"
            )
        if self.config.network.architecture == "unet":
            image, inner = image[0], inner[0]
        return Batch(image[np.newaxis, ..., np.newaxis], inner[np.newaxis])


def stacked(samples: Sequence[Batch]) -> Batch:
    """Return one batch of several."""
    images, labels = (np.concatenate(parts) for parts in zip(*samples, strict=True))
    return Batch(images, labels)


def numbers_of(step: int, worker: int, workers: int, batch: int) -> range:
    """Return which samples a worker takes in a step.

    >>> [list(numbers_of(1, worker, 2, 3)) for worker in (0, 1)]
    [[6, 7, 8], [9, 10, 11]]
    """
    first = (step * workers + worker) * batch
    return range(first, first + batch)


def stream(samples: Samples, *, worker: int, workers: int, start: int) -> Generator[Batch]:
    """Yield a worker's batches of steps `start`, `start` + 1, ..., made ahead in threads."""

    def make(step: int) -> Batch:
        numbers = numbers_of(step, worker, workers, samples.config.batch)
        return stacked([samples.training(number) for number in numbers])

    with ThreadPoolExecutor(READERS) as pool:
        ahead = [pool.submit(make, step) for step in range(start, start + AHEAD)]
        try:
            for step in count(start + AHEAD):
                batch = ahead.pop(0).result()
                ahead.append(pool.submit(make, step))
                yield batch
        finally:
            for future in ahead:
                future.cancel()
