"""The shapes that a network is compiled for, against those that its file declares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inference.engine.builder import Builder
from inference.engine.ops import Shape
from inference.errors import ModelError

InputShapes = Sequence[int] | Sequence[Sequence[int]]
"""(y, x, channels) or (z, y, x, channels), without the batch; or one of those for each input."""


def checked_inputs(
    declared: Sequence[Sequence[int | None]], given: InputShapes
) -> tuple[Builder, list[str]]:
    """Return a builder with inputs of the given shapes.

    Parameters
    ----------
    declared : sequence of shapes
        Of the file, channels last, without the batch. Sizes are not looked at: a network that was
        saved with one computes others too, if its layers fit.
    given : sequence of int, or of shapes
        What the network is to be compiled for.

    Raises
    ------
    ModelError
        If the file's network takes other inputs.
    """
    wanted = _listed(given)
    ranks = [len(shape) for shape in declared]
    is_alike = [len(shape) for shape in wanted] == ranks and all(
        a[-1] in (None, b[-1]) for a, b in zip(declared, wanted, strict=True)
    )
    if not is_alike or set(ranks) not in ({3}, {4}):
        shown = ", ".join(str(tuple(shape)) for shape in declared)
        raise ModelError(
            f"the model takes {shown}, without the batch; got the input shape "
            f"{', '.join(map(str, wanted))}. The engine computes images (y, x, channels) and "
            "volumes (z, y, x, channels)"
        )
    builder = Builder(is_flat=ranks[0] == 3)
    names = []
    for shape in wanted:
        *size, channels = shape
        z, y, x = (1, *size) if builder.is_flat else size
        whole: Shape = (channels, z, y, x)
        names.append(builder.input("input", whole))
    return builder, names


def _listed(given: Any) -> list[tuple[int, ...]]:
    many = given if given and isinstance(given[0], Sequence) else [given]
    return [tuple(int(n) for n in shape) for shape in many]
