"""Resizing as ONNX describes it, as far as the engine's own does the same.

Of the many ways to map an enlarged pixel to one of the image, those are read which for the given
sizes end at the same pixels and weights; this is looked at pixel by pixel.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from inference.engine.onnx_node import OnnxNode
from inference.engine.ops import Resize

Places = NDArray[np.float64]


def read(node: OnnxNode) -> str:
    """Read `Resize` or `Upsample`."""
    factors = _factors(node)
    mode = node.attribute("mode", "nearest")
    is_old = node.operator.kind == "Upsample" or node.opset < 11
    usual = ("asymmetric", "floor") if is_old else ("half_pixel", "round_prefer_floor")
    coordinates = node.attribute("coordinate_transformation_mode", usual[0])
    rounding = node.attribute("nearest_mode", usual[1])
    for name in ("cubic_coeff_a", "extrapolation_value"):  # of other modes
        node.attribute(name)
    node.only("antialias", 0)
    node.only("exclude_outside", 0)
    node.only("keep_aspect_ratio_policy", "stretch")
    size = node.size()
    for axis, factor in factors.items():
        places = _places(coordinates, size[axis], factor)
        if factor > 1 and (places is None or not _is_ours(places, mode, rounding, factor)):
            how = f"{mode}, {coordinates}" + (f", {rounding}" if mode == "nearest" else "")
            raise node.refused(f"it enlarges {factor} times by {how}, which is not computed")
    kinds = {"nearest": "nearest", "linear": "linear"}
    if mode not in kinds:
        raise node.refused(f"its mode is {mode!r}")
    z, y, x = (factors.get(axis, 1) for axis in "zyx")
    if (z, y, x) == (1, 1, 1):
        return node.images[0]
    return node.add(Resize((z, y, x), "linear" if mode == "linear" else "nearest"), node.images[0])


def _factors(node: OnnxNode) -> dict[str, int]:
    """Return the whole factor of every axis that is enlarged."""
    wanted, size = _wanted(node), node.size()
    found = {}
    for axis, factor in wanted.items():
        if factor != round(factor) or factor < 1 or (axis in "nc" and factor != 1):
            raise node.refused(f"it resizes the axis {axis!r} of {size[axis]} by {factor:g}")
        found[axis] = round(factor)
    return {axis: factor for axis, factor in found.items() if axis in "zyx"}


def _wanted(node: OnnxNode) -> dict[str, float]:
    """Return the factors as the versions of the operator give them: 7, 9 and 10, or since 11."""
    is_new = node.operator.kind == "Resize" and node.opset >= 11
    scales = node.constant(2 if is_new else 1)
    given = node.attribute("scales") if scales is None else scales
    sizes = node.constant(3) if is_new and given is None else None
    numbers = node.attribute("axes")
    axes = node.layout if numbers is None else [node.axis(n) for n in numbers]
    values = sizes if given is None else given
    if values is None or len(values) != len(axes):
        raise node.refused("it gives no scales or sizes for its axes")
    size = node.size()
    if given is None:
        return {axis: int(n) / size[axis] for axis, n in zip(axes, values, strict=True)}
    return {axis: float(n) for axis, n in zip(axes, values, strict=True)}


def _places(coordinates: str, size: int, factor: int) -> Places | None:
    """Return where the pixels of an enlarged axis lie on the axis itself."""
    n = np.arange(size * factor, dtype=np.float64)
    if coordinates in ("half_pixel", "half_pixel_symmetric", "pytorch_half_pixel"):
        return (n + 0.5) / factor - 0.5
    if coordinates == "asymmetric":
        return n / factor
    if coordinates == "align_corners":
        return n * (size - 1) / max(size * factor - 1, 1)
    return None


def _is_ours(places: Places, mode: str, rounding: str, factor: int) -> bool:
    last = len(places) // factor - 1
    if mode == "linear":
        ours = (np.arange(len(places)) + 0.5) / factor - 0.5
        return bool(np.allclose(places.clip(0, last), ours.clip(0, last), atol=1e-9))
    known: dict[str, Callable[[Places], Places]] = {
        "floor": np.floor,
        "ceil": np.ceil,
        "round_prefer_floor": lambda p: np.ceil(p - 0.5),
        "round_prefer_ceil": lambda p: np.floor(p + 0.5),
    }
    rounded = known.get(rounding)
    if mode != "nearest" or rounded is None:
        return False
    return bool((rounded(places).clip(0, last) == np.arange(len(places)) // factor).all())
