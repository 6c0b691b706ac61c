"""The shape of made-up neuropil: where its membranes lie, in any section on its own.

Processes are groups of discs (nodes) that wander smoothly through z, swell, end and branch; a
section shows the additively weighted Voronoi diagram of the discs that it cuts, bent by random
waves.

The processes move, but the tissue does not: from section to section a smooth correction takes away
the motion that a neighbourhood has in common, estimated as optical flow. So neighbouring sections
show no local drift, and "in register" is well defined.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates, spline_filter
from scipy.sparse import csr_array
from scipy.spatial import cKDTree

from alignment.noise import Noise, Stream
from alignment.optical_flow import move_back, smooth_flow
from alignment.splines import Coordinates
from alignment.voronoi import TILE, distance_to, nearest_nodes, scatter_discs

F32 = NDArray[np.float32]
I32 = NDArray[np.int32]
Box = tuple[int, int, int, int]
"""y0, x0, y1, x1 in px of the tissue, half-open."""

_BEND_PX = 12  # spacing of the surfaces that bend the diagram
_PERSISTENCE = 2.0  # sections; paths correlate by exp(-d^2 / (4 * persistence^2))
_THUMBNAIL_PX = 4  # pixel of the pictures in which drift is measured
_LEAST_SLOPE = np.float32(0.45)  # where both nodes lie on the same side, distances hardly differ


@dataclass(frozen=True)
class Nodes:
    """The discs that processes are made of: n of them, in m processes.

    Attributes
    ----------
    home : float32 (n, 2)
        Mean position, px of the bent tissue.
    radius : float32 (n,), px
    process : int32 (n,), never decreasing
    wander_px : float32 (n,)
        Standard deviation of the path around home, along y and along x.
    surroundings : (n, n)
        The weights with which every node averages over those around it.
    density : float32 (m,)
        Optical density of the cytoplasm.
    """

    home: F32
    radius: F32
    process: I32
    wander_px: F32
    surroundings: csr_array
    density: F32


class Slab(NamedTuple):
    """The structure in one section: at its upper face, its middle and its lower face."""

    z: int
    position: F32  # (3, n, 2), px of the bent tissue
    weight: F32  # (3, n), px
    bend: F32  # (3, 2, gy, gx), surfaces of displacement in px


class Cut(NamedTuple):
    """What a section shows on a grid of pixels; all arrays are (ny, nx)."""

    y: F32  # bent coordinates
    x: F32
    process: I32  # whose cytoplasm this is
    other: I32  # whose is nearest beyond the membrane
    gap: F32  # px to the membrane
    tilt: F32  # px by which the membrane moves through half the section's thickness


class Neuropil:
    """The structure of a block of neuropil, endless in z.

    Parameters
    ----------
    extent : (y0, x0, y1, x1)
        The tissue that is going to be drawn, px.
    seed : int
        The same extent and seed give the same tissue.
    """

    def __init__(self, extent: Box, seed: int) -> None:
        self.noise = Noise(extent, seed)
        self._extent = extent
        self.nodes = self._make_nodes()
        folding = self._finer(self.noise.surface(Stream.FOLDING, (0,), 90, 1.0, 2), 90)
        undulation = self._finer(self.noise.surface(Stream.UNDULATION, (0,), 34, 1.0, 2), 34)
        self._static_bend = 13 * folding[0] + 5 * undulation[0]
        self._settled = [np.zeros_like(self._static_bend)]
        self._before: F32 | None = None  # thumbnail of the last section that is settled

    def slab(self, z: int) -> Slab:
        """Return the structure in section z."""
        times = (z - 0.5, z, z + 0.5)
        settled = [self._settled_at(time) for time in times]
        return Slab(z, *self._paths(times), self._bend(times, settled))

    def cut(self, slab: Slab, rows: Coordinates, columns: Coordinates) -> Cut:
        """Find whose cytoplasm every pixel shows, and how far the membrane is.

        Which nodes are nearest is found on every second pixel, and so is what changes slowly; the
        distance itself on all. Rows and columns are consecutive, a multiple of 2 * `TILE` each.
        """
        process = self.nodes.process
        size = (columns.size, rows.size)
        coarse = [
            self._bent(bend, rows[::2] + 0.5, columns[::2] + 0.5)
            for bend in slab.bend  # upper face, middle, lower face
        ]

        def distance(node: I32, face: int) -> tuple[F32, F32, F32]:
            y, x = coarse[face]
            return distance_to(node, y, x, slab.position[face], slab.weight[face])

        y, x = coarse[1]
        position, weight = slab.position[1], slab.weight[1]
        first, second, third = nearest_nodes(y, x, position, weight, process)
        (_, uy, ux), (_, vy, vx) = distance(first, 1), distance(second, 1)
        (yy, yx), (xy, xx) = np.gradient(y, 2), np.gradient(x, 2)
        # Of (distance to the other - distance to mine), by the chain rule through the bend.
        slope = np.hypot(yy * (vy - uy) + xy * (vx - ux), yx * (vy - uy) + xx * (vx - ux))
        slope = np.maximum(slope, _LEAST_SLOPE)
        upper, lower = (distance(second, face)[0] - distance(first, face)[0] for face in (0, 2))
        # Sections are drawn half as thick again as they lie apart: it shows more oblique membrane.
        tilt = cv2.resize(np.float32(0.75) * np.abs(upper - lower) / slope, size)
        tilt = np.maximum(tilt, np.float32(0.6))

        y, x = self._bent(slab.bend[1], rows, columns)
        first, second = (_enlarge(node, size) for node in (first, second))
        mine = distance_to(first, y, x, position, weight)[0]
        theirs = distance_to(second, y, x, position, weight)[0]
        gap = (theirs - mine) / cv2.resize(slope, size)
        # Where three processes meet, corners are rounded: a soft minimum of the two distances.
        beside = np.float32(0.6) * (cv2.resize(third, size) - mine)
        rounding = np.log1p(np.exp(np.clip((np.abs(gap) - beside) / _ROUND_PX, -30, 10)))
        gap = np.copysign(np.maximum(np.abs(gap) - _ROUND_PX * rounding, 0), gap)
        return Cut(y, x, process[first], process[second], gap, tilt)

    def unbend(self, slab: Slab, bent: F32) -> F32:
        """Return the tissue pixels (n, 2) whose bent coordinates (n, 2) are given."""
        at = bent.astype(np.float64)
        for _ in range(8):
            # Coefficient c of a surface peaks at c - 1.
            knots = ((at - self.noise.origin_yx) / _BEND_PX + 1).T
            bend = [
                map_coordinates(one, knots, order=3, prefilter=False, mode="nearest")
                for one in slab.bend[1]
            ]
            at = bent - np.stack(bend, axis=1)
        return at.astype(np.float32)

    def _bent(self, bend: F32, rows: Coordinates, columns: Coordinates) -> F32:
        """Return the bent coordinates (2, ny, nx) of a grid of pixels."""
        bent = self.noise.evaluate(bend, _BEND_PX, rows, columns)
        bent[0] += rows[:, None].astype(np.float32)
        bent[1] += columns.astype(np.float32)
        return bent

    def _finer(self, surface: F32, spacing: int) -> F32:
        """Express a coarser surface (nearly) by coefficients at the bend's spacing."""
        return self.noise.evaluate(surface, spacing, *self._knots())

    def _knots(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the rows and columns where the bend's coefficients peak, px."""
        y, x = (
            first + _BEND_PX * (np.arange(n // _BEND_PX + 4) - 1).astype(np.float64)
            for first, n in zip(self.noise.origin_yx, self.noise.size_yx, strict=True)
        )
        return y, x

    def _make_nodes(self) -> Nodes:
        home, radius, process = scatter_discs(self.noise.random(Stream.PLACES), *self.noise.size_yx)
        home += np.array(self.noise.origin_yx, np.float32)
        count = int(process[-1]) + 1
        random = self.noise.random(Stream.KINDS)
        size = np.sqrt(np.bincount(process, radius**2))
        # Large processes are cut across and hardly shift; thin ones run in all directions.
        wander = 7.0 * random.lognormal(0, 0.35, count) / (1 + (size / 35) ** 2)
        kind = random.random(count)
        density = 0.23 + 0.025 * random.standard_normal(count)
        density += np.select([kind < 0.05, kind < 0.2], [0.25, 0.07], 0.0)  # glia are dark
        tree = cKDTree(home)
        near = tree.sparse_distance_matrix(tree, 150, output_type="coo_matrix")
        pull = np.exp(-0.5 * (near.data / 60) ** 2) * radius[near.col]
        weights = csr_array((pull, (near.row, near.col)), shape=(radius.size, radius.size))
        return Nodes(
            home,
            radius,
            process,
            wander[process].astype(np.float32),
            csr_array(weights.multiply(1 / weights.sum(axis=1)[:, None]), dtype=np.float32),
            density.astype(np.float32),
        )

    def _paths(self, times: Sequence[float]) -> tuple[F32, F32]:
        """Return where the nodes are, (times, n, 2), and their weights, (times, n), px."""
        nodes = self.nodes
        n, m = nodes.radius.size, nodes.density.size
        shared = self.noise.smooth(Stream.PATH_OF_PROCESS, times, (m, 2), _PERSISTENCE)
        own = self.noise.smooth(Stream.PATH_OF_NODE, times, (n, 2), _PERSISTENCE)
        path = np.float32(0.75) * shared[:, nodes.process] + np.float32(0.66) * own
        path *= nodes.wander_px[:, None]
        path -= np.stack([nodes.surroundings @ one for one in path])
        swell = self.noise.smooth(Stream.SIZE, times, (n,), 1.2 * _PERSISTENCE)
        swell *= np.minimum(np.float32(0.18) * nodes.radius, np.float32(2))
        # Now and then a node ends: its neighbours close over it, or its process parts in two.
        age = self.noise.smooth(Stream.LIFE, times, (n,), 2 * _PERSISTENCE)
        life = smoothstep((age + np.float32(1.9)) / np.float32(0.9))
        return nodes.home + path, (nodes.radius + swell) * life - 10 * (1 - life)

    def _bend(self, times: Sequence[float], settled: Sequence[F32]) -> F32:
        """Return how the diagram is bent: surfaces (times, 2, gy, gx) of displacement in px.

        First by what keeps it in register, displacements (2, gy, gx) at the knots, then by the
        random waves.
        """
        waves = self._finer(self.noise.surface(Stream.WAVE, times, 26, _PERSISTENCE, 2), 26)
        ripple = self.noise.surface(Stream.RIPPLE, times, _BEND_PX, 1.2, 2)
        bend = self._static_bend + 2 * waves + np.float32(1.5) * ripple
        return np.stack(
            [
                [_interpolating(c) for c in first + self._at_knots(then, first, order=3)]
                for first, then in zip(settled, bend, strict=True)
            ]
        )

    def _at_knots(self, surfaces: F32, displacement: F32, *, order: int) -> F32:
        """Return surfaces (2, gy, gx) at the knots moved by a displacement (2, gy, gx), px.

        By `order` 3 they are coefficients, by 1 values at the knots.
        """
        at = np.indices(displacement.shape[1:]) + displacement / _BEND_PX
        return np.stack(
            [
                map_coordinates(one, at, np.float32, order=order, prefilter=False, mode="nearest")
                for one in surfaces
            ]
        )

    def _settled_at(self, time: float) -> F32:
        """Return what keeps the tissue in register: displacements (2, gy, gx) at the knots, px."""
        below = max(math.floor(time), 0)
        part = np.float32(max(time, 0.0) - below)
        return (1 - part) * self._settle(below) + part * self._settle(below + bool(part))

    def _settle(self, z: int) -> F32:
        """Return the same at the middle of section z.

        It takes up the drift from every section to the next, so it is computed once, from the
        first section upwards.
        """
        while len(self._settled) <= z:
            last = self._settled[-1]
            before = self._thumbnail(0, last) if self._before is None else self._before
            after = self._thumbnail(len(self._settled), last)
            flow = smooth_flow(before, after, window_px=45 / _THUMBNAIL_PX)
            drift = self._from_thumbnail(flow)
            self._settled.append(drift + self._at_knots(last, drift, order=1))
            self._before = move_back(after, flow)
        return self._settled[z]

    def _thumbnail_grid(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        tile = TILE * _THUMBNAIL_PX
        rows, columns = (
            np.arange(first - 40.0, first - 40 + -(-(end - first + 80) // tile) * tile, 4)
            for first, end in zip(self._extent[:2], self._extent[2:], strict=True)
        )
        return rows, columns

    def _thumbnail(self, z: int, settled: F32) -> F32:
        """Return a rough picture of section z: membranes and cytoplasm, band-passed."""
        (position,), (weight,) = self._paths((z,))
        y, x = self._bent(self._bend((z,), (settled,))[0], *self._thumbnail_grid())
        first, second, _ = nearest_nodes(y, x, position, weight, self.nodes.process)
        mine, uy, ux = distance_to(first, y, x, position, weight)
        theirs, vy, vx = distance_to(second, y, x, position, weight)
        gap = (theirs - mine) / np.maximum(np.hypot(vy - uy, vx - ux), _LEAST_SLOPE)
        membrane = np.exp(-0.5 * (gap / np.float32(2.5)) ** 2)
        picture: F32 = -membrane - self.nodes.density[self.nodes.process[first]]
        fine, coarse = (
            cv2.GaussianBlur(picture, (0, 0), sigma / _THUMBNAIL_PX) for sigma in (2.5, 40)
        )
        return (fine - coarse).astype(np.float32)

    def _from_thumbnail(self, flow: F32) -> F32:
        """Return a displacement in the thumbnail's pixels at the knots, px."""
        at = np.meshgrid(
            *(
                (knots - grid[0]) / _THUMBNAIL_PX
                for knots, grid in zip(self._knots(), self._thumbnail_grid(), strict=True)
            ),
            indexing="ij",
        )
        return _THUMBNAIL_PX * np.stack(
            [map_coordinates(one, at, np.float32, order=1, mode="nearest") for one in flow]
        )


_ROUND_PX = np.float32(2.2)  # corners are rounded at this distance


def smoothstep(x: F32) -> F32:
    """Rise smoothly from 0 at 0 to 1 at 1."""
    x = np.clip(x, 0, 1)
    return x * x * (3 - 2 * x)


def _interpolating(values: F32) -> F32:
    """Return the coefficients of the surface that has these values at its knots."""
    return spline_filter(values, order=3, output=np.float32, mode="mirror")


def _enlarge(labels: I32, size: tuple[int, int]) -> I32:
    """Repeat every label along y and x; `size` is (nx, ny)."""
    return cv2.resize(labels, size, interpolation=cv2.INTER_NEAREST).astype(np.int32)
