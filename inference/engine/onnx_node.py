"""One node of an ONNX file as it is read: attributes, constants and axes, each asked for by name.

What a reader didn't ask for may change the result, so it is refused at the end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.engine.builder import Builder
from inference.engine.onnx_model import OnnxModel, Operator, layout_of
from inference.engine.ops import Array, Margins, Op, Triple
from inference.errors import UnsupportedError

Value = str | NDArray[Any]
"""A result in the graph by its name, or a constant."""


class OnnxNode:
    """A node whose first result is computed from at least one image."""

    def __init__(
        self, builder: Builder, model: OnnxModel, operator: Operator, given: list[Value | None]
    ) -> None:
        self.builder, self.opset, self.operator = builder, model.opset, operator
        self.given = given
        self._asked: set[str] = set()
        layouts = [
            model.layouts[name]
            for name, value in zip(operator.inputs, given, strict=True)
            if isinstance(value, str)
        ]
        self.layout = layouts[0]
        if any(layout != self.layout for layout in layouts):
            raise self.refused(f"its inputs have their axes in different orders: {layouts}")
        if not self.layout:
            raise self.refused("it computes neither images nor volumes with a batch and channels")

    def refused(self, why: str) -> UnsupportedError:
        """Return the error that names this node."""
        return UnsupportedError(
            f"the engine does not compute the node {self.operator.name!r} ({self.operator.kind}): "
            f"{why}; run the network by another backend"
        )

    # ------------------------------------------------------------------ what is asked for

    def attribute(self, name: str, default: Any = None) -> Any:
        """Return an attribute."""
        self._asked.add(name)
        return self.operator.attributes.get(name, default)

    def only(self, name: str, *allowed: Any) -> None:
        """Refuse any value of an attribute but these, the first being the default."""
        found = self.attribute(name, allowed[0])
        if found not in allowed:
            raise self.refused(f"{name} is {found!r}")

    def check_all_was_read(self) -> None:
        """Refuse attributes that no one asked for."""
        others = sorted(set(self.operator.attributes) - self._asked)
        if others:
            raise self.refused(f"it has the attribute {others[0]!r}")

    @property
    def images(self) -> list[str]:
        """The inputs that are results, in order."""
        return [value for value in self.given if isinstance(value, str)]

    @property
    def image(self) -> str:
        """The only input that is a result, which must be the first."""
        if len(self.images) != 1 or not isinstance(self.given[0], str):
            raise self.refused("what it needs beside the first input must be constant")
        return self.images[0]

    def constant(self, index: int) -> NDArray[Any] | None:
        """Return an input that must be constant, None if it is left out."""
        value = self.given[index] if index < len(self.given) else None
        if isinstance(value, str):
            raise self.refused(f"its input {index} must be constant")
        return value if value is None or value.size else None

    def weights(self, index: int) -> Array:
        """Return an input that must be there, as float32."""
        value = self.constant(index)
        if value is None or value.dtype.kind != "f":
            raise self.refused(f"its input {index} must be an array of floats")
        return value.astype(np.float32)

    # ------------------------------------------------------------------ axes

    def check_order(self) -> None:
        """Refuse an image whose axes were moved."""
        if self.layout != layout_of(len(self.layout)):
            raise self.refused(f"the axes of its input are in the order {self.layout}")

    def axis(self, number: int) -> str:
        """Return the letter of an axis by its number in the file."""
        if not -len(self.layout) <= number < len(self.layout):
            raise self.refused(f"there is no axis {number}")
        return self.layout[number]

    def size(self, image: str | None = None) -> dict[str, int]:
        """Return the sizes of an input by letters; a network without z has 1 there."""
        channels, z, y, x = self.builder.shape(image or self.images[0])
        return {"n": 1, "c": channels, "z": z, "y": y, "x": x}

    def sizes(self) -> NDArray[np.int64]:
        """Return the answer of `Shape`, for a batch of one."""
        size = self.size()
        whole = [size[axis] for axis in self.layout]
        return np.array(whole[slice(self.attribute("start"), self.attribute("end"))], np.int64)

    def triple(self, sizes: list[int]) -> Triple:
        """Return sizes of the file's (z,) y, x as three."""
        if len(sizes) != len(self.layout) - 2:
            raise self.refused(f"expected {len(self.layout) - 2} sizes, got {sizes}")
        z, y, x = ([1] if len(sizes) == 2 else []) + [int(n) for n in sizes]
        return z, y, x

    def margins(self, by_axis: dict[str, tuple[int, int]]) -> Margins:
        """Return margins of axes as three pairs; batch and channels must have none."""
        for axis in "nc":
            if by_axis.get(axis, (0, 0)) != (0, 0):
                raise self.refused("it changes the batch or the channels")
        z, y, x = (by_axis.get(axis, (0, 0)) for axis in "zyx")
        return z, y, x

    def add(self, op: Op, *inputs: str) -> str:
        """Write an operation under this node's name."""
        return self.builder.add(self.operator.name, op, *(inputs or (self.image,)))
