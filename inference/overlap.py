"""A large array through a network in overlapping patches, block by block, without seams.

Patches lie on one grid over the whole array, whatever block asks for them: along an axis, patch k
begins at ``origin + k * step - margin``, so that a block's result does not depend on how the array
was cut into blocks. Two ways to put them together:

- "valid": of each patch only what lies at least `margin` from its border is kept. Nothing is seen
  twice; right where the margin covers the network's field of view.
- "blend": patches fade into each other over their overlap, by raised cosines whose sum is one.
  Hides what is left of seams where the margin is smaller than that. The grid lies half a step
  off: blocks of n whole steps then end in the middle of patches, and are made of n + 1 along an
  axis. Ending where patches meet, they would be made of n + 2, two of them for a rim.

What lies outside the array is 0, "no data". Arrays of any number of axes; numpy only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import batched, product
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from inference.errors import ModelError

Place = tuple[int, ...]
Mode = Literal["valid", "blend"]
Predict = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""As `inference.network.PatchNetwork.__call__`: (batch, ..., 1) to (batch, ..., channels)."""
Scale = Callable[[NDArray[Any]], NDArray[np.float32]]
Encode = Callable[[NDArray[np.float32]], NDArray[Any]]


@dataclass(frozen=True)
class PatchGrid:
    """Where patches lie, and what of each is used; all in voxels, one number an axis.

    >>> grid = PatchGrid(patch=(64,), margin=(8,))
    >>> grid.step, grid.needed((0,), (96,)), grid.count((0,), (96,))
    ((48,), ((-8,), (104,)), 2)

    Raises
    ------
    ModelError
        If a patch consists of margins, or a network takes more than the margin off it.
    """

    patch: Place
    margin: Place
    """At either side: cropped in mode "valid", faded out in mode "blend"."""
    mode: Mode = "valid"
    shrink: Place = ()
    """By how much a network's output is smaller than a patch, at either side; 0 without it."""

    def __post_init__(self) -> None:
        """Check what the fields promise each other."""
        object.__setattr__(self, "shrink", self.shrink or (0,) * len(self.patch))
        if not len(self.patch) == len(self.margin) == len(self.shrink):
            raise ModelError(f"patch {self.patch} and margin {self.margin} differ in their axes")
        if any(m < 0 or 2 * m >= p for p, m in zip(self.patch, self.margin, strict=True)):
            raise ModelError(
                f"a patch of {self.patch} has nothing left inside a margin of {self.margin} at "
                "either side; raise patches.patch_px or lower patches.margin_px"
            )
        if any(not 0 <= q <= m for q, m in zip(self.shrink, self.margin, strict=True)):
            raise ModelError(
                f"the network takes {self.shrink} voxels off either side of a patch, more than the "
                f"margin of {self.margin}; raise patches.margin_px"
            )

    @property
    def step(self) -> Place:
        """From one patch to the next."""
        return tuple(p - 2 * m for p, m in zip(self.patch, self.margin, strict=True))

    @property
    def reach(self) -> Place:
        """How far beyond its own step a patch is used, at either side."""
        if self.mode == "valid":
            return (0,) * len(self.patch)
        return tuple(m - q for m, q in zip(self.margin, self.shrink, strict=True))

    @property
    def origin(self) -> Place:
        """Where the step of patch 0 begins; see the module."""
        sizes = zip(self.step, self.reach, strict=True)
        return tuple(-(s // 2) if 0 < r <= s // 2 else 0 for s, r in sizes)

    def along(self, axis: int) -> PatchGrid:
        """Return the grid of one axis alone."""
        one = slice(axis, axis + 1)
        return PatchGrid(self.patch[one], self.margin[one], self.mode, self.shrink[one])

    def patches(self, start: Place, stop: Place) -> list[range]:
        """Return the numbers of the patches that a block [start, stop) is made of, by axis."""
        sizes = zip(start, stop, self.origin, self.step, self.reach, strict=True)
        return [range((a - o - r) // s, -(-(b - o + r) // s)) for a, b, o, s, r in sizes]

    def count(self, start: Place, stop: Place) -> int:
        """Return how many patches a block is made of."""
        return prod(map(len, self.patches(start, stop)))

    def needed(self, start: Place, stop: Place) -> tuple[Place, Place]:
        """Return start and stop of what a block is computed from; it may leave the array."""
        numbers = self.patches(start, stop)
        low = self.corner(tuple(k[0] for k in numbers))
        last = self.corner(tuple(k[-1] for k in numbers))
        return low, tuple(c + p for c, p in zip(last, self.patch, strict=True))

    def corner(self, number: Place) -> Place:
        """Return the first voxel of a patch."""
        sizes = zip(number, self.origin, self.step, self.margin, strict=True)
        return tuple(o + k * s - m for k, o, s, m in sizes)

    def weights(self) -> list[NDArray[np.float32]]:
        """Return the weight of each voxel that is used of a patch, by axis; they multiply."""
        return [fade(s, r) for s, r in zip(self.step, self.reach, strict=True)]


@lru_cache(maxsize=64)
def fade(step: int, reach: int) -> NDArray[np.float32]:
    """Return raised-cosine weights (step + 2 reach,) whose copies, `step` apart, sum to one.

    >>> fade(4, 1).round(3)
    array([0.146, 0.854, 1.   , 1.   , 0.854, 0.146], dtype=float32)
    """
    if reach == 0:
        return np.ones(step, np.float32)
    at = np.arange(step + 2 * reach)
    rise = np.minimum(at + 0.5, at[::-1] + 0.5) / (2 * reach)
    raw = np.sin(np.pi / 2 * np.minimum(rise, 1.0)) ** 2
    total = np.bincount(at % step, raw)
    return np.asarray(raw / total[at % step], dtype=np.float32)


def predict_block(
    predict: Predict,
    voxels: NDArray[Any],
    grid: PatchGrid,
    start: Sequence[int],
    stop: Sequence[int],
    *,
    channels: int,
    scale: Scale,
    batch: int = 1,
    skip_empty: bool = False,
    encode: Encode = np.asarray,
    dtype: DTypeLike = np.float32,
) -> NDArray[Any]:
    """Return a network's output for the block [start, stop) of a large array.

    Parameters
    ----------
    predict : callable
        The network.
    voxels : ndarray
        What `grid.needed` says of the array, 0 where that leaves it.
    channels : int
        That the network gives.
    scale : callable
        Brings voxels into the network's range, float32.
    batch : int
        Patches at a time; always as many, so that the network is compiled for one shape.
    skip_empty : bool
        A patch without any data gives 0, unseen by the network.
    encode : callable
        Makes values of `dtype` of those of the network, each by itself; 0 of 0. Without blending
        it is called patch by patch, so that the block is never held as float32.

    Returns
    -------
    ndarray of shape (channels, ...)
        Of the block.

    Raises
    ------
    ModelError
        If the network gives another shape than it said, or what is no number.
    """
    start, stop = tuple(start), tuple(stop)
    shape = (channels, *(b - a for a, b in zip(start, stop, strict=True)))
    result = np.zeros(shape, np.float32 if grid.mode == "blend" else dtype)
    low, high = grid.needed(start, stop)
    if voxels.shape != tuple(b - a for a, b in zip(low, high, strict=True)):
        raise ValueError(f"expected the voxels {low} to {high}, got an array of {voxels.shape}")
    patches = np.zeros((batch, *grid.patch, 1), np.float32)
    for group in batched(_corners(voxels, grid, start, stop, skip_empty=skip_empty), batch):
        patches[len(group) :] = 0
        for patch, (corner, _) in zip(patches, group, strict=False):
            patch[..., 0] = scale(_cut(voxels, low, corner, grid.patch))
        answers = _checked(predict(patches), grid, batch, channels)
        for answer, (_, number) in zip(answers, group, strict=False):
            into, part, weights = _used(answer, grid, number, start, stop)
            if grid.mode == "blend":
                _add(result[into], part, weights)
            else:
                result[into] = np.moveaxis(encode(part), -1, 0)
    return result if grid.mode == "valid" else _encoded(result, encode, dtype)


def _corners(
    voxels: NDArray[Any], grid: PatchGrid, start: Place, stop: Place, *, skip_empty: bool
) -> Iterator[tuple[Place, Place]]:
    """Yield first voxel and number of each patch of a block."""
    low, _ = grid.needed(start, stop)
    for number in product(*grid.patches(start, stop)):
        corner = grid.corner(number)
        if not skip_empty or _cut(voxels, low, corner, grid.patch).any():
            yield corner, number


def _cut(voxels: NDArray[Any], low: Place, corner: Place, patch: Place) -> NDArray[Any]:
    sizes = zip(corner, low, patch, strict=True)
    return voxels[tuple(slice(c - a, c - a + p) for c, a, p in sizes)]


def _checked(
    answers: NDArray[np.float32], grid: PatchGrid, batch: int, channels: int
) -> NDArray[np.float32]:
    size = tuple(p - 2 * q for p, q in zip(grid.patch, grid.shrink, strict=True))
    if answers.shape != (batch, *size, channels):
        raise ModelError(
            f"the network gave {answers.shape}, expected {(batch, *size, channels)} (batch, space, "
            "channel)"
        )
    return answers


def _used(
    answer: NDArray[np.float32], grid: PatchGrid, number: Place, start: Place, stop: Place
) -> tuple[tuple[slice, ...], NDArray[np.float32], list[NDArray[np.float32]]]:
    """Return where in a block an answer goes, what of it, and the weights of that by axis."""
    into, of, fades = [slice(None)], [], []
    axes = zip(
        grid.corner(number), start, stop, grid.margin, grid.reach, grid.shrink, grid.weights(),
        strict=True,
    )  # fmt: skip
    for corner, first, last, margin, reach, shrink, weights in axes:
        begin = corner + margin - reach  # of what is used of the patch, whatever the block
        low, high = max(begin, first), min(begin + len(weights), last)
        into.append(slice(low - first, high - first))
        of.append(slice(low - corner - shrink, high - corner - shrink))
        fades.append(weights[low - begin : high - begin])
    part = answer[tuple(of)]
    if not np.isfinite(part).all():
        raise ModelError(
            "the network gave values that are no numbers; look at patches.scale, and whether the "
            "model was trained to the end"
        )
    return tuple(into), part, fades


def _add(
    target: NDArray[np.float32], part: NDArray[np.float32], weights: list[NDArray[np.float32]]
) -> None:
    """Add what a patch tells of a block (channels first) to it, weighted.

    Slice by slice: one of them stays in the processor's cache while its channels are sorted.
    """
    weight = np.ones((), np.float32)
    for fades in weights[1:]:
        weight = weight[..., np.newaxis] * fades
    for k, share in enumerate(weights[0]):
        plane = np.ascontiguousarray(np.moveaxis(part[k], -1, 0))
        plane *= share * weight
        target[:, k] += plane


def _encoded(values: NDArray[np.float32], encode: Encode, dtype: DTypeLike) -> NDArray[Any]:
    """Encode a block channel by channel: a second one in float32 would take as much memory."""
    result = values if values.dtype == dtype else np.empty(values.shape, dtype)
    for stored, channel in zip(result, values, strict=True):
        stored[...] = encode(channel)
    return result
