"""A range of sections as TIFF files, one a section: tiled, uncompressed, with the voxel's size.

Sections are written side by side, block by block: a chunk of the volume holds several of them and
is decoded once, and neither a section nor a band of it is ever whole in memory. A file has its name
only when it is complete.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from storage import store
from storage.errors import MismatchError, UriError
from storage.grid import Box
from storage.targets.blocks import Tell
from storage.targets.origin import Level, Origin, claim
from storage.targets.tiffheader import TiffLayout, tiff_layout
from storage.uri import local_path
from storage.volume import read, write_unit

TILE_PX = 512
_BLOCK_PX = 2048
_MAX_FILES = 64
"""Sections written side by side, whatever the depth of the chunks."""

YX = tuple[tuple[int, int], tuple[int, int]]
"""(y0, y1), (x0, x1): half-open."""


def export_tiff(
    origin: Origin,
    dest: str,
    *,
    z: tuple[int, int],
    mip: int = 0,
    box: YX | None = None,
    tell: Tell | None = None,
) -> list[str]:
    """Write sections [z0, z1) to files ``z000010.tif`` ... in the folder `dest`; return the names.

    Parameters
    ----------
    box : ((y0, y1), (x0, x1)), optional
        Part of every section, px at `mip`; all of it by default.

    Raises
    ------
    UriError
        If `dest` is not a folder on a file system.
    MismatchError
        If the range leaves the volume.
    ConflictError
        If `dest` holds something else.
    MissingError, CorruptError
        If voxels of the volume are missing or damaged.
    """
    folder = local_path(store.normalise_uri(dest))
    if folder is None:
        raise UriError(f"{dest} is not a folder on a file system; TIFF files are written to one")
    level = origin.level(mip)
    nz, ny, nx = level.array.shape
    (y0, y1), (x0, x1) = box or ((0, ny), (0, nx))
    if not (0 <= z[0] < z[1] <= nz and 0 <= y0 < y1 <= ny and 0 <= x0 < x1 <= nx):
        raise MismatchError(
            f"sections {z[0]}:{z[1]}, box {y0}:{y1},{x0}:{x1} do not lie inside the volume, which "
            f"is {nz} sections of {ny} x {nx} px at mip {mip}"
        )
    about: dict[str, Any] = {
        "format": "petalign export 1",
        "to": "tiff",
        "from": origin.about,
        "mip": mip,
        "box": {"y": [y0, y1], "x": [x0, x1]},
        "resolution_nm": list(level.resolution_nm),
    }
    claim(folder.as_uri(), {**about, "z": list(z)})
    layouts = {
        k: tiff_layout(
            (y1 - y0, x1 - x0),
            TILE_PX,
            level.resolution_nm[1:],
            json.dumps({"petalign": {**about, "z": k}}),
        )
        for k in range(*z)
    }
    todo = [k for k in layouts if not _is_complete(folder / _name(k), layouts[k])]
    done = len(layouts) - len(todo)
    for group in _groups(todo, write_unit(level.array)[0]):
        _write_group(folder, level, group, layouts, (y0, x0))
        done += len(group)
        if tell:
            tell("sections", done, len(layouts))
    return [_name(k) for k in layouts]


def _name(z: int) -> str:
    return f"z{z:06d}.tif"


def _is_complete(path: Path, layout: TiffLayout) -> bool:
    return path.is_file() and path.stat().st_size == layout.file_bytes


def _groups(sections: list[int], depth: int) -> list[list[int]]:
    """Return consecutive sections that share chunks, no more than can be open at once."""
    groups: list[list[int]] = []
    for z in sections:
        last = groups[-1] if groups else []
        if last and last[-1] == z - 1 and z // depth == last[0] // depth and len(last) < _MAX_FILES:
            last.append(z)
        else:
            groups.append([z])
    return groups


def _write_group(
    folder: Path,
    level: Level,
    group: list[int],
    layouts: dict[int, TiffLayout],
    corner: tuple[int, int],
) -> None:
    """Write some consecutive sections side by side."""
    partial = {z: folder / f".{_name(z)}.partial" for z in group}
    layout = layouts[group[0]]
    height, width = layout.shape
    with ExitStack() as stack:
        files = {z: stack.enter_context(partial[z].open("wb")) for z in group}
        for z, file in files.items():
            file.write(layouts[z].header)
        for top in range(0, height, TILE_PX):
            for left in range(0, width, _BLOCK_PX):
                bottom, right = min(top + TILE_PX, height), min(left + _BLOCK_PX, width)
                start = (group[0], corner[0] + top, corner[1] + left)
                stop = (group[-1] + 1, corner[0] + bottom, corner[1] + right)
                voxels = read(level.array, Box(start, stop, level.mip))
                for z, image in zip(group, voxels, strict=True):
                    _write_tiles(files[z], layouts[z], image, top // TILE_PX, left // TILE_PX)
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    for z, path in partial.items():
        path.replace(folder / _name(z))


def _write_tiles(file: BinaryIO, layout: TiffLayout, image: Any, row: int, first: int) -> None:
    """Write the tiles of one row of them; those at the edges are padded, as TIFF wants it."""
    for k in range(-(-image.shape[1] // TILE_PX)):
        part = image[:, k * TILE_PX : (k + 1) * TILE_PX]
        whole = np.zeros((TILE_PX, TILE_PX), np.uint8)
        whole[: part.shape[0], : part.shape[1]] = part
        file.seek(layout.offset(row, first + k))
        file.write(whole.tobytes())
