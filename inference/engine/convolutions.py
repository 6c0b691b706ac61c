"""The steps of convolutions: what they read around an image, and their weights."""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np

from inference.engine import packing
from inference.engine.choices import Choice, Work, scratch_floats, work_of
from inference.engine.layout import Margin, Place
from inference.engine.ops import Array, Conv, Shape, TransposedConv
from inference.engine.program import Somewhere, Step
from inference.native.structures import Kind

_STREAMED_BYTES = 4_000_000  # of a result that would push all else out of the caches
_PIECES = 4  # of work for each thread, at least, where there are several


def margin(op: Conv, given: Shape, made: Shape, choice: Choice) -> Margin:
    """Return the zeros that a convolution reads around an image."""
    ends = []
    for axis in (1, 2):
        size, out, before = given[axis + 1], made[axis + 1], op.padding[axis][0]
        if choice.kernel == "winograd":  # whole tiles
            out = -(-out // choice.tile) * choice.tile
        last = (out - 1) * op.stride[axis] + op.kernel.shape[axis] - 1 - before
        ends += [max(before, 0), max(last - (size - 1), 0)]
    return Margin(*ends)


def step(
    name: str,
    op: Conv,
    given: Place,
    out: Somewhere,
    residual: Place | None,
    work: Work,
    choice: Choice,
    *,
    threads: int = 1,
) -> Step:
    """Return the step of a convolution."""
    group = choice.vectors * work.lanes
    groups = -(-work.outputs // group)
    lanes_in = given.buffer.lanes
    if choice.kernel == "direct":
        weights = packing.direct(
            op.kernel, given.positions, lanes_in=lanes_in, group=group, groups=groups
        )
    else:
        weights = packing.winograd(
            op.kernel,
            given.positions,
            tile=choice.tile,
            slices=choice.slices,
            group=group,
            groups=groups,
        )
    arrays = {"weights": weights, "bias": _padded(op.bias, group * groups)}
    if op.residual is not None:
        arrays["factor"] = _padded(op.residual, group * groups)
    numbers: dict[str, int | tuple[int, int, int]] = {
        "sides": work.sides,
        "stride": op.stride,
        "before": (op.padding[0][0], op.padding[1][0], op.padding[2][0]),
        "vectors": choice.vectors,
        "pixels": choice.pixels,
        "tile": choice.tile,
        "tiles": _tiles(work, choice, threads),
        "slices": choice.slices,
        "depth_parts": _depth_parts(work, choice, threads),
        "is_streamed": choice.kernel == "winograd" and _is_large(out),
    }
    sides = " x ".join(map(str, work.sides))
    return Step(
        Kind.DIRECT if choice.kernel == "direct" else Kind.WINOGRAD,
        f"{name}: {sides}, {work.inputs} to {work.outputs} channels, {choice.in_words()}",
        out,
        given,
        residual,
        op.activation,
        numbers,
        arrays,
        scratch_floats(work, choice),
    )


def _is_large(out: Somewhere) -> bool:
    return isinstance(out, Place) and 4 * out.buffer.floats >= _STREAMED_BYTES


def _padded(values: Array, size: int) -> Array:
    return np.pad(values, (0, size - len(values)))


def _tiles(work: Work, choice: Choice, threads: int) -> int:
    """Return how many tiles are transformed together, so that all threads have as many of them.

    Of several slices, parts of z are dealt out.
    """
    depth, height, width = work.size
    if threads == 1 or depth > 1 or choice.kernel == "direct":
        return choice.tiles
    all_ = -(-height // choice.tile) * -(-width // choice.tile)
    turns = -(-all_ // (choice.tiles * threads))
    each = -(-all_ // (turns * threads))
    return min(-(-each // choice.pixels) * choice.pixels, choice.tiles)


def _depth_parts(work: Work, choice: Choice, threads: int) -> int:
    """Return into how many parts z is cut, so that all threads have work to the end."""
    if threads == 1 or choice.kernel == "direct":
        return 1
    depth, height, width = work.size
    tiles = -(-height // choice.tile) * -(-width // choice.tile)
    pieces = -(-tiles // choice.tiles)
    together = max(work.sides[0], choice.slices)
    most = depth if together == 1 else max(depth // together, 1)
    return max(1, min(-(-_PIECES * threads // pieces), most))


# ------------------------------------------------------------------ transposed


def _phases(
    op: TransposedConv, size: tuple[int, int, int]
) -> list[list[tuple[int, int, int, int]]]:
    """Return for each axis, for each phase of the result, what makes it.

    (first result, how many, the first tap, the place read for it by the first result): results of
    one phase are `stride` apart and are a convolution with every `stride`-th tap.
    """
    axes = []
    for n, side, stride, crop in zip(size, op.kernel.shape, op.stride, op.crop, strict=False):
        phases = []
        for first in range(min(stride, n)):
            whole, tap = divmod(first + crop[0], stride)
            taps = len(range(tap, side, stride))
            phases.append((first, -(-(n - first) // stride), tap if taps else -1, whole))
        axes.append(phases)
    return axes


def _phase_kernel(op: TransposedConv, taps: tuple[int, ...]) -> Array:
    """Return the taps of one phase, turned round: the last one reads the first voxel."""
    kernel = op.kernel
    for axis, tap in enumerate(taps):
        if tap >= 0:
            every = np.arange(tap, kernel.shape[axis], op.stride[axis])
            kernel = kernel.take(every[::-1], axis)
        else:  # nothing reaches these results: only the bias is left
            kernel = np.zeros_like(kernel.take([0], axis))
    return np.ascontiguousarray(kernel)


def transposed_margin(op: TransposedConv, given: Shape, made: Shape) -> Margin:
    """Return the zeros that a transposed convolution reads around an image."""
    ends = []
    for axis in (1, 2):
        before = after = 0
        for _, number, tap, whole in _phases(op, made[1:])[axis]:
            taps = max(len(range(tap, op.kernel.shape[axis], op.stride[axis])), 1)
            taps = taps if tap >= 0 else 1
            before = max(before, taps - 1 - whole)
            after = max(after, number - 1 + whole - (given[axis + 1] - 1))
        ends += [before, after]
    return Margin(*ends)


def transposed_steps(
    name: str, op: TransposedConv, given: Place, out: Place, choose: Callable[[Work], Choice]
) -> list[Step]:
    """Return a convolution for every phase of the result."""
    found = []
    for phase in product(*_phases(op, out.size)):
        first, number, taps, whole = zip(*phase, strict=True)
        kernel = _phase_kernel(op, taps)
        part = out.part(first, number, op.stride)
        before = tuple(k - 1 - w for k, w in zip(kernel.shape, whole, strict=False))
        z, y, x = ((b, 0) for b in before)
        conv = Conv(kernel, op.bias, padding=(z, y, x), activation=op.activation)
        shape = (kernel.shape[4], *number)
        # Winograd's kernel can't write with gaps: as of plain work, it is not asked.
        work = work_of(conv, shape, given.buffer.lanes, given.channels, is_plain=True)
        choice = choose(work)
        found.append(step(f"{name} {first}", conv, given, part, None, work, choice))
    return found
