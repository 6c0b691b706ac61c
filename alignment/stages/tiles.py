"""Where the tiles of a montage lie: read from storage, matched and placed by the algorithms."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.errors import DataError
from alignment.montage import (
    MontageConfig,
    Pair,
    Solution,
    find_pairs,
    is_believed,
    solve_section,
)
from alignment.mosaic import make_canvas
from alignment.tilematch import TileMatch, match_views, view_tile
from alignment.tilerefine import refine_match
from storage.errors import SourceError
from storage.sources.montage import Montage

Record = dict[str, Any]
Image = NDArray[np.uint8]
Valid = NDArray[np.bool_] | None

_VIEWS = 32
"""Spectra that are kept while a section is solved, 13 MB each."""
_TILES = 8
"""Decoded tiles that are kept meanwhile."""


def solve(montage: Montage, z: int, config: MontageConfig, *, workers: int = 1) -> Record:
    """Find where the tiles of a section lie; return it as JSON values.

    A tile that cannot be read has no match and keeps its nominal place; it is not drawn.

    Raises
    ------
    SourceError
        If no tile of the section can be read.
    DataError
        If the section is a strip without positions, and its overlaps do not hold it together.
    """
    section = montage.sections[z]
    nominal = section.nominal
    n = len(section.tiles)
    shapes, unreadable = _shapes(montage, z, workers)
    matches, doubts = _matches(montage, z, shapes, config, workers)
    try:
        solution = solve_section(matches, nominal, n, config)
    except DataError as error:
        raise DataError(f"section {section.name!r} of {montage.uri}: {error}") from None
    canvas = make_canvas(solution.positions, shapes)
    part_of = {i: k for k, part in enumerate(solution.parts) for i in part}
    return {
        "z": z,
        "name": section.name,
        "fingerprint": montage.fingerprint(z),
        "shape": list(canvas.shape),
        "tiles": [
            {
                "file": tile.file,
                "page": tile.page,
                "shape": [int(v) for v in shapes[i]],
                "nominal": None if nominal is None else [float(v) for v in nominal[i]],
                "position": [float(v) for v in solution.positions[i]],
                "pixel": [int(v) for v in canvas.corners[i]],
                "part": part_of[i],
                "unreadable": unreadable.get(i),
            }
            for i, tile in enumerate(section.tiles)
        ],
        "pairs": _pairs(solution, matches, doubts),
    }


def summarise(records: list[Record]) -> dict[str, Any]:
    """Return what a person wants to know of all sections, as JSON values."""
    sections = []
    residuals: list[float] = []
    for record in records:
        used = [p for p in record["pairs"] if p["rejected"] is None]
        residuals += [p["residual_px"] for p in used]
        held = {i for p in used for i in p["tiles"]}
        tiles = record["tiles"]
        sections.append(
            {
                "z": record["z"],
                "name": record["name"],
                "shape": record["shape"],
                "tiles": len(tiles),
                "loose": [t["file"] for i, t in enumerate(tiles) if i not in held]
                if len(tiles) > 1
                else [],
                "unreadable": [t["file"] for t in tiles if t["unreadable"] is not None],
                "parts": 1 + max(t["part"] for t in tiles),
                "overlaps": len(used),
                "rejected": [
                    p["tiles"] for p in record["pairs"] if p["rejected"] == "contradicts the others"
                ],
                "residual_px": median(p["residual_px"] for p in used) if used else None,
                "worst_residual_px": max((p["residual_px"] for p in used), default=None),
                "score": median(p["score"] for p in used) if used else None,
            }
        )
    return {
        "format": "petalign montage 1",
        "unit": "px at mip 0, (y, x); positions/<z>.json holds every tile and every overlap",
        "total": {
            "tiles": sum(s["tiles"] for s in sections),
            "loose": sum(len(s["loose"]) for s in sections),
            "unreadable": sum(len(s["unreadable"]) for s in sections),
            "rejected": sum(len(s["rejected"]) for s in sections),
            "residual_px": median(residuals) if residuals else None,
        },
        "sections": sections,
    }


def read_tile(montage: Montage, z: int, i: int) -> tuple[Image, Valid]:
    """Return a tile and where it shows tissue, both (y, x).

    Raises
    ------
    SourceError
        If one of them cannot be read, or their shapes differ.
    """
    image, valid = montage.read_tile(z, i), montage.read_mask(z, i)
    if valid is not None and valid.shape != image.shape:
        tile = montage.sections[z].tiles[i]
        raise SourceError(
            f"mask {tile.mask} is {valid.shape} px (y, x), its tile {tile.file} {image.shape}"
        )
    return image, valid


def _shapes(montage: Montage, z: int, workers: int) -> tuple[NDArray[np.int64], dict[int, str]]:
    """Return the shape of every tile, (n, 2), and why some cannot be read."""

    def shape(i: int) -> tuple[int, int] | str:
        try:
            ny, nx = read_tile(montage, z, i)[0].shape
        except SourceError as error:
            return str(error)
        return ny, nx

    section = montage.sections[z]
    with ThreadPoolExecutor(workers) as pool:
        found = list(pool.map(shape, range(len(section.tiles))))
    known = [f for f in found if not isinstance(f, str)]
    if not known:
        raise SourceError(f"section {section.name!r}: no tile can be read; the first: {found[0]}")
    typical = max(set(known), key=known.count)
    shapes = np.array([typical if isinstance(f, str) else f for f in found], dtype=np.int64)
    return shapes, {i: f for i, f in enumerate(found) if isinstance(f, str)}


def _matches(
    montage: Montage, z: int, shapes: NDArray[np.int64], config: MontageConfig, workers: int
) -> tuple[dict[Pair, TileMatch], dict[Pair, tuple[TileMatch | None, str]]]:
    """Return the matches of a section that are believed, and the others with the reason."""
    nominal = montage.sections[z].nominal
    ny, nx = (int(v) for v in shapes.max(axis=0))

    @lru_cache(maxsize=_TILES)
    def tile(i: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_] | None]:
        return read_tile(montage, z, i)

    @lru_cache(maxsize=_VIEWS)
    def view(i: int) -> Any:
        try:
            return view_tile(*tile(i), (ny, nx))
        except SourceError:
            return None

    def match(pair: Pair) -> tuple[TileMatch | None, str]:
        i, j = pair
        first, second = view(i), view(j)
        if first is None or second is None:
            return None, "one of the tiles cannot be read"
        shift = None if nominal is None else (nominal[j] - nominal[i]).tolist()
        reach = config.search_fraction * float(shapes[[i, j]].max())
        found = match_views(first, second, shift, reach)
        if found is None:
            return None, "nothing alike within reach"
        doubt = is_believed(found, config)
        if doubt:
            return found, doubt
        return refine_match(tile(i), tile(j), found, first.mip), ""

    pairs = find_pairs(nominal, shapes, config.search_fraction)
    with ThreadPoolExecutor(workers) as pool:
        found = dict(zip(pairs, pool.map(match, pairs), strict=True))
    believed = {pair: m for pair, (m, doubt) in found.items() if m is not None and not doubt}
    return believed, {pair: answer for pair, answer in found.items() if answer[1]}


def _pairs(
    solution: Solution,
    matches: dict[Pair, TileMatch],
    doubts: dict[Pair, tuple[TileMatch | None, str]],
) -> list[Record]:
    """Return what is known of every pair that was compared, as JSON values."""
    everything: dict[Pair, tuple[TileMatch | None, str]] = {
        **doubts,
        **{
            pair: (match, "contradicts the others" if pair in solution.rejected else "")
            for pair, match in matches.items()
        },
    }
    records = []
    for (i, j), (match, reason) in sorted(everything.items()):
        record: Record = {"tiles": [i, j], "rejected": reason or None}
        if match is not None:
            record |= {
                "shift": [round(float(v), 4) for v in match.shift_yx],
                "score": round(match.score, 4),
                "fine_score": round(match.fine_score, 4),
                "significance": round(match.significance, 2),
                "distinctness": round(match.distinctness, 3),
                "overlap": round(match.overlap, 4),
            }
        if (i, j) in solution.residual_px:
            record["residual_px"] = round(solution.residual_px[i, j], 4)
        records.append(record)
    return records
