"""Values of an ONNX file that depend on no image: weights, and sums of sizes for resizing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.engine.onnx_model import Operator
from inference.errors import UnsupportedError

Values = NDArray[Any]

MOST = 2**28
"""Values that one may have: a small file could ask for any number."""


def fold(operator: Operator, given: Sequence[Values]) -> Values:
    """Compute an operator on constants.

    Raises
    ------
    UnsupportedError
        If it is none of those that exporters compute sizes and weights with.
    """
    compute = _KNOWN.get(operator.kind)
    if compute is None:
        raise UnsupportedError(
            f"the engine does not compute the node {operator.name!r} ({operator.kind}) on "
            f"constants; it does {', '.join(sorted(_KNOWN))}"
        )
    if operator.kind in _OF_TWO and np.prod(np.broadcast_shapes(*(g.shape for g in given))) > MOST:
        raise UnsupportedError(f"the node {operator.name!r} makes more than {MOST} values")
    try:
        return np.asarray(compute(operator.attributes, given))
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise UnsupportedError(
            f"the node {operator.name!r} ({operator.kind}) cannot be computed: {error}"
        ) from error


def constant(attributes: Mapping[str, Any], given: Sequence[Values]) -> Values:
    """Return the value of a `Constant`."""
    for name, dtype in (("value_float", np.float32), ("value_floats", np.float32)):
        if name in attributes:
            return np.asarray(attributes[name], dtype)
    for name in ("value_int", "value_ints"):
        if name in attributes:
            return np.asarray(attributes[name], np.int64)
    return np.asarray(attributes["value"])


def _cast(attributes: Mapping[str, Any], given: Sequence[Values]) -> Values:
    kinds = {1: np.float32, 6: np.int32, 7: np.int64, 10: np.float16, 11: np.float64}
    return given[0].astype(kinds[attributes["to"]])


def _gather(attributes: Mapping[str, Any], given: Sequence[Values]) -> Values:
    return given[0].take(given[1], axis=attributes.get("axis", 0))


def _concat(attributes: Mapping[str, Any], given: Sequence[Values]) -> Values:
    return np.concatenate(given, axis=attributes["axis"])


def _axes(attributes: Mapping[str, Any], given: Sequence[Values]) -> tuple[int, ...] | None:
    """Return the axes of a (un)squeezing: an attribute once, an input since operator set 13."""
    found = attributes.get("axes", given[1] if len(given) > 1 else None)
    return None if found is None else tuple(int(axis) for axis in found)


def _unsqueeze(attributes: Mapping[str, Any], given: Sequence[Values]) -> Values:
    return np.expand_dims(given[0], _axes(attributes, given) or ())


def _squeeze(attributes: Mapping[str, Any], given: Sequence[Values]) -> Values:
    return np.squeeze(given[0], _axes(attributes, given))


def _slice(attributes: Mapping[str, Any], given: Sequence[Values]) -> Values:
    parts = [slice(None)] * given[0].ndim
    for axis, start, end, step in slices(attributes, given[1:], given[0].ndim):
        parts[axis] = slice(start, end, step)
    return given[0][tuple(parts)]


def slices(
    attributes: Mapping[str, Any], given: Sequence[Values], rank: int
) -> list[tuple[int, int, int, int]]:
    """Return (axis, start, end, step) of a `Slice`: attributes once, inputs since set 10."""
    names = ("starts", "ends", "axes", "steps")
    found: dict[str, Any] = dict(zip(names, given, strict=False))
    found = {name: found.get(name, attributes.get(name)) for name in names}
    starts, ends = ([int(n) for n in found[name]] for name in names[:2])
    axes = range(len(starts)) if found["axes"] is None else found["axes"]
    steps = [1] * len(starts) if found["steps"] is None else found["steps"]
    rows = zip(axes, starts, ends, steps, strict=True)
    return [(int(axis) % rank, start, end, int(step)) for axis, start, end, step in rows]


def _reshape(attributes: Mapping[str, Any], given: Sequence[Values]) -> Values:
    sizes = [n or given[0].shape[axis] for axis, n in enumerate(given[1])]
    return given[0].reshape(sizes)


def _divide(attributes: Mapping[str, Any], given: Sequence[Values]) -> Values:
    a, b = given
    if a.dtype.kind == "f":
        return np.asarray(a / b)
    return (np.sign(a) * np.sign(b) * (abs(a) // abs(b))).astype(a.dtype)  # towards 0


def _of_two(function: Callable[[Values, Values], Values]) -> Any:
    return lambda attributes, given: function(*given)


_OF_TWO = ("Add", "Sub", "Mul", "Div")
_KNOWN: dict[str, Callable[[Mapping[str, Any], Sequence[Values]], Values]] = {
    "Add": _of_two(np.add),
    "Cast": _cast,
    "Ceil": lambda attributes, given: np.ceil(given[0]),
    "Concat": _concat,
    "Constant": constant,
    "Div": _divide,
    "Floor": lambda attributes, given: np.floor(given[0]),
    "Gather": _gather,
    "Identity": lambda attributes, given: given[0],
    "Mul": _of_two(np.multiply),
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Sub": _of_two(np.subtract),
    "Transpose": lambda attributes, given: given[0].transpose(attributes.get("perm")),
    "Unsqueeze": _unsqueeze,
}
