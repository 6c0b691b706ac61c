"""Montages as sections: tiles that were placed, drawn box by box."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.mosaic import Canvas, blend, edge_weights, touching
from alignment.stages.tiles import Record, read_tile
from storage.errors import SourceError
from storage.grid import ZYX, Box
from storage.sources.files import digest
from storage.sources.montage import Montage

_TILE_BYTES = 256 * 2**20
"""Decoded tiles with their weights that are kept while sections are drawn."""


class Stitched:
    """The sections of a montage whose tiles were placed: a source like any other.

    Parameters
    ----------
    montage : Montage
    records : list of dict
        Of `alignment.stages.tiles.solve`, one a section, in order.
    """

    def __init__(self, montage: Montage, records: list[Record]) -> None:
        self._montage = montage
        self._records = records
        self._kept: OrderedDict[tuple[int, int], tuple[Any, Any]] = OrderedDict()
        self._lock = Lock()

    @property
    def shape(self) -> ZYX:
        """Sections, and height and width of the largest one, (nz, ny, nx)."""
        sizes = [record["shape"] for record in self._records]
        return len(sizes), max(y for y, _ in sizes), max(x for _, x in sizes)

    @property
    def resolution_nm(self) -> tuple[float, float, float] | None:
        """None: neither kind of positions states a voxel size."""
        return None

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each section, for reports."""
        return self._montage.names

    def describe(self) -> dict[str, Any]:
        """Return what identifies the content, as JSON values."""
        return {
            "kind": "stitched montage",
            "shape": list(self.shape),
            "dtype": "uint8",
            "sections": [self.fingerprint(z) for z in range(self.shape[0])],
        }

    def fingerprint(self, z: int) -> str:
        """Return what identifies the content of section `z`: its tiles, and where they lie."""
        record = self._records[z]
        return digest(record["fingerprint"], [tuple(t["pixel"]) for t in record["tiles"]])

    def read_rows(self, z: int, y0: int, y1: int) -> NDArray[np.uint8]:
        """Return rows [y0, y1) of section `z`, uint8 (y1 - y0, nx)."""
        return self.read_box(Box((z, y0, 0), (z + 1, y1, self.shape[2]), 0))

    def read_box(self, box: Box) -> NDArray[np.uint8]:
        """Return a box of one section, uint8 (y, x); 0 beyond its tiles.

        Raises
        ------
        SourceError
            If a tile changed since it was placed.
        UnavailableError
            If the disk or the server does not answer.
        """
        (z, *start), (_, *stop) = box.start, box.stop
        record = self._records[z]
        shapes = np.array([tile["shape"] for tile in record["tiles"]], dtype=np.int64)
        corners = np.array([tile["pixel"] for tile in record["tiles"]], dtype=np.int64)
        canvas = Canvas((record["shape"][0], record["shape"][1]), corners)
        low, high = (start[0], start[1]), (stop[0], stop[1])
        shown = [
            i
            for i in touching(canvas, shapes, low, high)
            if record["tiles"][i]["unreadable"] is None
        ]
        tiles = (((int(corners[i][0]), int(corners[i][1])), *self._tile(z, i)) for i in shown)
        return blend(low, (high[0] - low[0], high[1] - low[1]), tiles)

    def _tile(self, z: int, i: int) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        with self._lock:
            if (z, i) in self._kept:
                self._kept.move_to_end((z, i))
                return self._kept[z, i]
        image, valid = read_tile(self._montage, z, i)
        if list(image.shape) != self._records[z]["tiles"][i]["shape"]:
            tile = self._montage.sections[z].tiles[i]
            raise SourceError(
                f"tile {tile.file} is {image.shape} px now; it was "
                f"{tuple(self._records[z]['tiles'][i]['shape'])} when it was placed. Stitch again "
                "to another name"
            )
        kept = image, edge_weights(image.shape, valid)
        with self._lock:
            self._kept[z, i] = kept
            while len(self._kept) > 1 and self._kept_bytes() > _TILE_BYTES:
                self._kept.popitem(last=False)
        return kept

    def _kept_bytes(self) -> int:
        return sum(image.nbytes + weights.nbytes for image, weights in self._kept.values())
