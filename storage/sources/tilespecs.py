"""Render's tilespecs.json: tiles, and the transforms that someone else has found for them.

Only where a tile roughly lies is taken from it. Its lens correction and its elastic transforms are
not applied: overlaps and elastic alignment find again what matters of them.

Format: the tile specification of Render, https://github.com/saalfeldlab/render
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.errors import SourceError
from storage.sources.positions import Tile, check_file

_AFFINE = "AffineModel2D"

SizeOf = Callable[[str], tuple[int, int]]


def parse_tilespecs(document: Any, name: str, names: list[str], size_of: SizeOf) -> list[Tile]:
    """Return the tiles of a document: a list of tile specs, or an object with ``tileSpecs``.

    Parameters
    ----------
    names : list of str
        Of the files in the folder: a tile's URL says where it was once, so only the file's name
        counts; see `_file_of`.
    size_of : callable
        Returns (ny, nx) of a file. Specs are in px of the full-resolution image, files may be
        smaller; the first tile's file decides the scale of all.

    Raises
    ------
    SourceError
        Naming the tile, what was expected and what came.
    """
    specs = document.get("tileSpecs") if isinstance(document, dict) else document
    if not isinstance(specs, list) or not specs or not all(isinstance(s, dict) for s in specs):
        raise SourceError(f"{name} holds no tile specs; expected a list, or one below tileSpecs")
    tiles = []
    scale = 0.0
    for index, spec in enumerate(specs):
        where = f"{name}, tile {spec.get('tileId', index)}"
        try:
            level = _finest_level(spec)
            file = _file_of(str(level["imageUrl"]), names, where)
            mask = str(level["maskUrl"]) if level.get("maskUrl") else None
            width = float(spec["width"])
            scale = scale or size_of(file)[1] / width
            y, x = (v * scale for v in _corner(spec))
            section = f"{float(spec['z']):g}"
        except (KeyError, IndexError, TypeError, ValueError, ArithmeticError) as error:
            if isinstance(error, SourceError):
                raise
            raise SourceError(
                f"{where} cannot be understood ({type(error).__name__}: {error}); expected z, "
                "width, height, mipmapLevels, and minX, minY, maxX, maxY or a layout"
            ) from None
        if not max(abs(y), abs(x)) < 1e9:
            raise SourceError(f"{where} lies at ({y}, {x}) px")
        tiles.append(Tile(section, file, 0, y, x, _file_of(mask, names, where) if mask else None))
    return tiles


def _finest_level(spec: dict[str, Any]) -> dict[str, Any]:
    levels = spec["mipmapLevels"]
    return dict(levels[min(levels, key=int)])


def _file_of(url: str, names: list[str], where: str) -> str:
    """Return the file in the folder that a URL means.

    The one of its name; else the only one that is called the same but for what follows the last
    ``_``, as copies of ``col0060_row0140_cam0.tif`` are.
    """
    name = check_file(url.replace("\\", "/").rpartition("/")[2], where)
    if name in names:
        return name
    stem = name.partition(".")[0].rpartition("_")[0]
    alike = [n for n in names if stem and n.partition(".")[0].rpartition("_")[0] == stem]
    if len(alike) != 1:
        raise SourceError(
            f"{where}: its image {name} is not in the folder"
            + (f"; {', '.join(alike[:5])} are like it" if alike else "")
        )
    return alike[0]


def _corner(spec: dict[str, Any]) -> tuple[float, float]:
    """Return the nominal (y, x) of a tile's first pixel, in full-resolution px of the tile."""
    height, width = float(spec["height"]), float(spec["width"])
    linear = _linear_part(spec)
    if "minX" in spec:
        middle_x = (float(spec["minX"]) + float(spec["maxX"])) / 2
        middle_y = (float(spec["minY"]) + float(spec["maxY"])) / 2
        x, y = np.linalg.solve(linear, (middle_x, middle_y))
        return float(y) - height / 2, float(x) - width / 2
    layout = spec["layout"]
    return float(layout["stageY"]), float(layout["stageX"])


def _linear_part(spec: dict[str, Any]) -> NDArray[np.float64]:
    """Return the product of the linear parts of a tile's affines, acting on (x, y).

    It is how the tile is turned and scaled against its section; transforms of other kinds hardly
    do either. The tiles of a section are turned alike, so undoing it gives the grid of the stage.
    """
    linear = np.eye(2)
    for transform in (spec.get("transforms") or {}).get("specList", ()):
        if str(transform.get("className", "")).endswith(_AFFINE):
            m00, m10, m01, m11 = (float(v) for v in str(transform["dataString"]).split()[:4])
            linear = np.array([[m00, m01], [m10, m11]]) @ linear
    if not 0.1 < abs(float(np.linalg.det(linear))) < 10:
        raise ValueError(f"its affines have the determinant {np.linalg.det(linear):.3g}")
    return linear
