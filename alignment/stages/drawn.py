"""What the aligned volume shows of a section in a box: its own tissue, or another's in its place.

Each section is drawn through its own field, whichever section it stands in for, so a shard depends
on no other shard.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.intensity import Grey, grey_table
from alignment.render import Interpolation, source_bounds, warp
from alignment.runs import Run
from alignment.stages import inputs
from alignment.stages.slabreads import relaxed
from alignment.stages.units import Ref, Section, Whole
from storage.commit import records
from storage.grid import Box
from storage.volume import Array, open_array, read, read_region

Image = NDArray[np.uint8]

FILL_REACH = 3
"""Sections away from which masked pixels are filled, at most."""
_INVALID, _VALID = 1, 255  # of a mask as it is drawn; 0 is outside the section


def shown_section(run: Run, z: int) -> int | None:
    """Return the section drawn at z: its own, for a missing one the nearest, or none."""
    gone = inputs.missing(run.uri)
    if z not in gone:
        return z
    if run.config.render.bridge_missing == "blank":
        return None
    return min(inputs.present(run), key=lambda other: (abs(other - z), other))


def substitutes(run: Run, z: int, shown: int) -> list[int]:
    """Return the sections that may fill what is masked at z, in the order in which they are asked.

    The nearest first, of two as near the earlier one.
    """
    masked = run.config.render.masked
    if masked in ("keep", "zero"):
        return []
    near = [
        other
        for other in inputs.present(run)
        if other != shown and abs(other - z) <= FILL_REACH and (masked == "neighbour" or other < z)
    ]
    return sorted(near, key=lambda other: (abs(other - z), other))


def reads(run: Run, z: int) -> list[Ref]:
    """Return what a section needs to be drawn, as inputs."""
    needed = [inputs.ingested(z), relaxed(run, z)]
    if run.config.render.masked != "keep":
        needed.append(inputs.masked(z))
    if run.config.render.normalise != "none":
        needed.append(grey_of(z))
    return needed


def grey_of(z: int) -> Ref:
    """Return the grey of section z, as an input."""
    return Ref("render", "grey", Section(z).label)


COMMON_GREY = Ref("render", "common", Whole().label)
"""The grey that all sections shall have, as an input."""


class Drawing:
    """Draws what the aligned volume shows; for one unit of work, whose arrays it opens once."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.bytes_read = 0
        self._arrays: dict[str, Array] = {}

    def draw(self, z: int, box: Box) -> Image:
        """Draw what is shown at z in the rows and columns of a box."""
        shown = shown_section(self.run, z)
        if shown is None:
            return np.zeros(box.shape[1:], np.uint8)
        section = _Section(self, shown)
        image = section.drawn(box)
        if self.run.config.render.masked == "keep":
            return image
        masked = section.masked(box)
        image[masked] = 0
        for other in substitutes(self.run, z, shown):
            rows, columns = (np.flatnonzero(masked.any(axis)) for axis in (1, 0))
            if not rows.size:
                break
            part = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            _fill(image[part], masked[part], _Section(self, other), _part(box, rows, columns))
        return image

    def array(self, path: str) -> Array:
        """Return an array of the run."""
        if path not in self._arrays:
            self._arrays[path] = open_array(self.run.uri, path)
        return self._arrays[path]


def _fill(image: Image, masked: NDArray[np.bool_], other: _Section, box: Box) -> None:
    """Put another section's good tissue where an image is masked."""
    drawn = other.drawn(box)
    good = masked & ~other.masked(box) & (drawn > 0)
    image[good] = drawn[good]
    masked[good] = False


def _part(box: Box, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> Box:
    z, y, x = box.start
    return Box(
        (z, y + int(rows[0]), x + int(columns[0])),
        (box.stop[0], y + int(rows[-1]) + 1, x + int(columns[-1]) + 1),
        box.mip,
    )


class _Section:
    """A section of the source with its place, field and grey."""

    def __init__(self, drawing: Drawing, z: int) -> None:
        self.drawing = drawing
        self.run = drawing.run
        self.z = z
        field = inputs.read_row(drawing.array("fields"), z)
        spacing_px = self.run.config.relax.node_spacing_px
        self.place = (inputs.coarse(self.run.uri).matrices[z], field, spacing_px)

    def drawn(self, box: Box) -> Image:
        """Return the aligned section in the rows and columns of a box."""
        inside = self._needed(box)
        if 0 in inside.shape:
            return np.zeros(box.shape[1:], np.uint8)
        source = read(self.drawing.array("sections/0"), inside)[0]
        self.drawing.bytes_read += int(source.nbytes)
        image = self._warp(source, inside, box, self.run.config.render.interpolation)
        if self.run.config.render.normalise != "none":
            image = np.asarray(cv2.LUT(image, self._grey_table()), dtype=np.uint8)
        return image

    def masked(self, box: Box) -> NDArray[np.bool_]:
        """Return where in the box the section is there and may not be used."""
        inside = self._needed(box)
        if 0 in inside.shape:
            return np.zeros(box.shape[1:], bool)
        mip = self.run.config.masks.mip
        (_, y0, x0), (_, y1, x1) = inside.start, inside.stop
        rows, columns = (slice(a >> mip, -(-b >> mip)) for a, b in ((y0, y1), (x0, x1)))
        here = slice(self.z, self.z + 1)
        coarse = read_region(self.drawing.array("valid"), (here, rows, columns))[0]
        fine = np.where(coarse > 0, np.uint8(_VALID), np.uint8(_INVALID))
        fine = fine.repeat(2**mip, 0).repeat(2**mip, 1)
        first_y, first_x = y0 - (rows.start << mip), x0 - (columns.start << mip)
        mask = fine[first_y : first_y + y1 - y0, first_x : first_x + x1 - x0]
        return self._warp(mask, inside, box, "nearest") == _INVALID

    def _needed(self, box: Box) -> Box:
        """Return the part of the section that a box shows."""
        _, y0, x0 = box.start
        _, ny, nx = box.shape
        bounds = source_bounds(*self.place, (y0, x0), (ny, nx))
        needed = Box((self.z, bounds[0], bounds[1]), (self.z + 1, bounds[2], bounds[3]), 0)
        return needed.clip(self.run.shape)

    def _warp(self, source: Image, inside: Box, box: Box, interpolation: Interpolation) -> Image:
        origin = (inside.start[1], inside.start[2])
        (_, y0, x0), (_, ny, nx) = box.start, box.shape
        return warp(source, origin, *self.place, (y0, x0), (ny, nx), interpolation)

    def _grey_table(self) -> Image:
        own, common = (
            records.read_commit(self.run.uri, ref.stage, ref.phase, ref.unit).value
            for ref in (grey_of(self.z), COMMON_GREY)
        )
        if own["median"] is None:
            return np.arange(256, dtype=np.uint8)
        return grey_table(
            Grey(own["median"], own["spread"]), Grey(common["median"], common["spread"])
        )
