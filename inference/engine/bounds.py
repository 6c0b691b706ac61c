"""Numbers that an operation may have.

Files come from anywhere and kernels trust what they are told, so what no library would accept
either, such as negative margins, ends here.
"""

from __future__ import annotations

from collections.abc import Iterable

from inference.engine.ops import (
    Conv,
    Crop,
    Margins,
    Op,
    Pad,
    Pool,
    Resize,
    Shape,
    TransposedConv,
)
from inference.errors import ShapeError

LARGEST = 2**20
"""Length of an axis, of a stride or of a margin; kernels count in 32 bits."""


def check(op: Op, made: Shape) -> None:
    """Refuse an operation with impossible numbers.

    Raises
    ------
    ShapeError
        Naming what is out of bounds.
    """
    _check("a result", [max(n, 0) for n in made], 0)  # the graph says where nothing is left
    if isinstance(op, Conv | TransposedConv | Pool):
        _check("a stride", op.stride, 1)
    if isinstance(op, Conv | TransposedConv):
        _check("a kernel", op.kernel.shape, 1)
    if isinstance(op, Pool):
        _check("a window", op.size, 1)
    if isinstance(op, Resize):
        _check("a factor", op.factor, 1)
    if isinstance(op, Conv | Pool):
        _check("padding", _all(op.padding), 0)
    if isinstance(op, Crop | Pad):
        _check("a margin", _all(op.margins), 0)
    if isinstance(op, TransposedConv):
        _check("a margin", [before for before, _ in op.crop], 0)
        _check("a margin", [abs(after) for _, after in op.crop], 0)


def _all(margins: Margins) -> list[int]:
    return [n for pair in margins for n in pair]


def _check(what: str, numbers: Iterable[int], least: int) -> None:
    found = list(numbers)
    if any(not least <= n <= LARGEST for n in found):
        raise ShapeError(f"{what} of {found} is not between {least} and {LARGEST}")
