"""Voxel sizes as the formats state them; None unless all of it is stated."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Any

Resolution = tuple[float, float, float]
"""Voxel size (z, y, x) in nm."""

_NM = {
    "angstrom": 0.1, "nm": 1.0, "nanometer": 1.0, "nanometre": 1.0, "nanometers": 1.0,
    "um": 1e3, "µm": 1e3, "μm": 1e3, "\\u00b5m": 1e3, "micron": 1e3, "microns": 1e3,
    "micrometer": 1e3, "micrometre": 1e3, "mm": 1e6, "millimeter": 1e6, "cm": 1e7,
    "centimeter": 1e7, "m": 1e9, "meter": 1e9,
}  # fmt: skip
"""Nanometres of the units that ImageJ, OME, NGFF and N5 write."""


def in_nm(sizes_zyx: Sequence[Any], units_zyx: Sequence[Any]) -> Resolution | None:
    """Return sizes with their units in nm, None if one is missing, unknown or not positive.

    >>> in_nm((0.04, 4, 4), ("micrometer", "nm", "nm"))
    (40.0, 4.0, 4.0)
    """
    try:
        z, y, x = (
            float(size) * _NM[str(unit).strip().lower()]
            for size, unit in zip(sizes_zyx, units_zyx, strict=True)
        )
    except (KeyError, TypeError, ValueError):
        return None
    return (z, y, x) if min(z, y, x) > 0 else None


def tiff_resolution(tif: Any) -> Resolution | None:
    """Return what ImageJ's own fields or the OME-XML of a TIFF file state.

    The resolution tags alone do not count: 72 dpi and the like say nothing about a microscope.
    """
    if tif.is_imagej:
        return _imagej(tif)
    return _ome(tif) if tif.is_ome else None


def _imagej(tif: Any) -> Resolution | None:
    stated = tif.imagej_metadata or {}
    tags = tif.pages[0].tags
    pitch = []
    for tag in ("YResolution", "XResolution"):
        per_unit, one = tags[tag].value if tag in tags else (0, 1)
        pitch.append(one / per_unit if per_unit else None)
    return in_nm((stated.get("spacing"), *pitch), (stated.get("unit", ""),) * 3)


def _ome(tif: Any) -> Resolution | None:
    pixels = ET.fromstring(tif.ome_metadata).find(".//{*}Pixels")
    if pixels is None:
        return None
    sizes = [pixels.get(f"PhysicalSize{axis}") for axis in "ZYX"]
    return in_nm(sizes, [pixels.get(f"PhysicalSize{axis}Unit", "µm") for axis in "ZYX"])
