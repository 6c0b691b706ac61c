"""Folders of camera tiles with their positions: sections that have to be stitched first.

Two ways to write positions down, both beside the tiles:

``positions.csv``, for everybody
    One line a tile, in any order. Columns ``file`` (below the folder), ``section`` or ``z``, ``y``
    and ``x`` (of the tile's first pixel in its section, px of the tile's own image; rough is good
    enough), and if needed ``page`` (of a multi-page TIFF, from 0) and ``mask`` (a file; 0 where
    there is no tissue). A section whose tiles have empty ``y`` and ``x`` is a strip: each of its
    tiles overlaps the one in the line after it, nobody knows where.

``tilespecs.json``, as Render writes it
    The middle of each tile's bounding box is turned and scaled back by the affines of its
    transforms, so that nominal positions are in the tiles' own pixels.

Where tiles really lie, `alignment.montage` finds from their overlaps.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import astuple, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage import store
from storage.errors import MissingError, SourceError
from storage.sources.files import IMAGE_SUFFIXES, digest, identity
from storage.sources.folder import natural_key
from storage.sources.positions import Tile, parse_positions
from storage.sources.tileimage import count_pages, image_size, read_image
from storage.sources.tilespecs import parse_tilespecs

POSITIONS, TILESPECS = "positions.csv", "tilespecs.json"

MAX_TABLE_BYTES = 2**30
"""Of positions.csv or tilespecs.json: some million tiles."""


@dataclass(frozen=True)
class TileSection:
    """The tiles of one section."""

    name: str
    tiles: tuple[Tile, ...]

    @property
    def nominal(self) -> NDArray[np.float64] | None:
        """Nominal positions (n, 2), (y, x) px; None for a strip without any."""
        if any(tile.y is None or tile.x is None for tile in self.tiles):
            return None
        return np.array([(tile.y, tile.x) for tile in self.tiles], dtype=np.float64)


@dataclass(frozen=True)
class Montage:
    """All tiles of a volume. It is no source yet: nobody knows where its tiles lie."""

    uri: str
    """Of the folder that tiles and masks are named from."""
    sections: tuple[TileSection, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each section."""
        return tuple(section.name for section in self.sections)

    def describe(self) -> dict[str, Any]:
        """Return what identifies the content, as JSON values."""
        return {
            "kind": "montage",
            "tiles": sum(len(section.tiles) for section in self.sections),
            "sections": [self.fingerprint(z) for z in range(len(self.sections))],
        }

    def fingerprint(self, z: int) -> str:
        """Return what identifies the tiles of section `z` and their nominal places."""
        parts: list[Any] = []
        for tile in self.sections[z].tiles:
            files = [name for name in (tile.file, tile.mask) if name is not None]
            parts += [astuple(tile), *(_fingerprint_of(self._uri_of(name)) for name in files)]
        return digest(*parts)

    def read_tile(self, z: int, i: int) -> NDArray[np.uint8]:
        """Return tile `i` of section `z`, uint8 (y, x).

        Raises
        ------
        SourceError
            If it cannot be read, is too large, or not an 8-bit image.
        UnavailableError
            If the disk or the server does not answer.
        """
        tile = self.sections[z].tiles[i]
        what = f"tile {tile.file} of section {self.sections[z].name!r}"
        return read_image(self._uri_of(tile.file), tile.page, what)

    def read_mask(self, z: int, i: int) -> NDArray[np.bool_] | None:
        """Return where tile `i` of section `z` shows tissue, bool (y, x); None: everywhere.

        Raises
        ------
        SourceError, UnavailableError
            As `read_tile`.
        """
        tile = self.sections[z].tiles[i]
        if tile.mask is None:
            return None
        valid = _read_mask(self._uri_of(tile.mask), f"mask {tile.mask}")
        valid.setflags(write=False)  # shared by the tiles that name it
        return valid

    def _uri_of(self, name: str) -> str:
        return store.join(self.uri, name)


def has_montage(names: list[str]) -> bool:
    """Return whether a folder with these names says where tiles lie."""
    return POSITIONS in names or TILESPECS in names


def not_stitched(uri: str) -> str:
    """Return what to do with a montage where sections are expected."""
    return (
        f"{uri} holds camera tiles with positions, not sections; stitch them first: petalign "
        f"stitch {uri} SECTIONS.zarr, and give SECTIONS.zarr as the source (`petalign align` does "
        "both by itself)"
    )


def open_montage(uri: str) -> Montage:
    """Find the tiles of a folder that has a positions.csv or a tilespecs.json.

    Raises
    ------
    SourceError
        If there is neither or both, or it cannot be understood; the message names the line.
    """
    folder = store.normalise_uri(uri)
    names = store.list_names(folder)
    found = [name for name in (POSITIONS, TILESPECS) if name in names]
    if len(found) != 1:
        raise SourceError(
            f"{folder} holds {' and '.join(found) or 'neither'}; expected one of {POSITIONS} "
            f"(columns file, section, y, x) and {TILESPECS} (of Render)"
        )
    text = _read_table(store.join(folder, found[0]))
    if found[0] == POSITIONS:
        return Montage(folder, _grouped(parse_positions(text, POSITIONS)))

    def size_of(name: str) -> tuple[int, int]:
        return image_size(store.join(folder, name), f"tile {name}")

    return Montage(folder, _grouped(parse_tilespecs(_parse_json(text), TILESPECS, names, size_of)))


def open_strip(uri: str) -> Montage:
    """Take the pages of a TIFF file, or the images of a folder, for the strip of one section.

    In their order, each overlapping the one after it; nobody knows where.

    Raises
    ------
    SourceError
        If there are not two images at least.
    """
    place = store.normalise_uri(uri)
    folder, _, name = place.rpartition("/")
    if name.lower().endswith((".tif", ".tiff")):
        tiles = [Tile("0", name, page, None, None, None) for page in range(count_pages(place))]
    else:
        folder = place
        images = [n for n in store.list_names(place) if n.lower().endswith(IMAGE_SUFFIXES)]
        tiles = [Tile("0", n, 0, None, None, None) for n in sorted(images, key=natural_key)]
    if len(tiles) < 2:
        raise SourceError(f"{place} holds {len(tiles)} images; a strip has two or more")
    return Montage(folder, _grouped(tiles))


def _grouped(tiles: list[Tile]) -> tuple[TileSection, ...]:
    groups: dict[str, list[Tile]] = defaultdict(list)
    for tile in tiles:
        groups[tile.section].append(tile)
    for name, members in groups.items():
        known = [tile.y is not None and tile.x is not None for tile in members]
        if any(known) and not all(known):
            missing = next(t.file for t, k in zip(members, known, strict=True) if not k)
            raise SourceError(
                f"section {name!r}: {missing} has no y and x, but others have; give all tiles of "
                "a section a rough place, or none (a strip in the order of the lines)"
            )
    ordered = sorted(groups, key=lambda name: (*_number_first(name), natural_key(name)))
    return tuple(TileSection(name, tuple(groups[name])) for name in ordered)


def _number_first(name: str) -> tuple[bool, float]:
    try:
        return False, float(name)
    except ValueError:
        return True, 0.0


def _read_table(uri: str) -> str:
    n = store.size(uri)
    if n > MAX_TABLE_BYTES:
        raise SourceError(f"{uri} has {n} bytes, more than {MAX_TABLE_BYTES}; split the volume")
    try:
        return store.read_bytes(uri).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise SourceError(f"{uri} is not UTF-8 text: {error}") from None


def _parse_json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SourceError(f"{TILESPECS} is not JSON: {error}") from None


def _fingerprint_of(uri: str) -> str:
    try:
        return identity(uri).fingerprint
    except MissingError:
        return "missing"  # says so when it is read


@lru_cache(maxsize=8)
def _read_mask(uri: str, what: str) -> NDArray[np.bool_]:
    return read_image(uri, 0, what) > 0
