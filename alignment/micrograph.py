"""Made-up neuropil as serial-section transmission electron microscopy shows it.

A membrane is seen through the thickness of the section, so where it runs obliquely it is a broad
grey band. Organelles and cytoskeleton sit on the nodes of the structure and go with them; grain,
vesicles and stain change from section to section.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.neuropil import F32, I32, Box, Cut, Neuropil, Slab, smoothstep
from alignment.noise import Stream

_BLOCK = 1024  # side of what is drawn at once, which bounds the memory
_HALO = 32  # drawn around a block and cut off: more than the blurs reach
_GRAIN = 256  # side of the squares of white noise
_DOT = 10  # half the side of the square that a dot is drawn in
_EDGE = np.float32(0.85)  # px; softness of a membrane's edge

# Spacing (px) and persistence (sections) of the textures that are smooth random surfaces.
_TEXTURES = {
    Stream.STAIN: (90, 0.4),
    Stream.CLOUD: (18, 0.7),
    Stream.FINE_CLOUD: (7, 0.4),
    Stream.MEMBRANE: (20, 2.0),
    Stream.SYNAPSE: (11, 1.6),
    Stream.RETICULUM: (12, 1.3),
    Stream.CRISTAE: (14, 2.5),
}

Textures = dict[Stream, F32]


@dataclass(frozen=True)
class _Bodies:
    """Mitochondria and light vacuoles: ellipsoids on nodes, one above the other."""

    node: I32
    is_mitochondrion: NDArray[np.bool_]
    offset: F32  # (n, 2), px
    half_axis_px: F32
    elongation: F32
    angle: F32
    half_height: F32  # sections
    period: F32  # sections from one to the next
    phase: F32
    density: F32  # above the cytoplasm's
    crista_px: F32


class Micrograph:
    """Draws sections of a `Neuropil`."""

    def __init__(self, neuropil: Neuropil) -> None:
        self._neuropil = neuropil
        nodes = neuropil.nodes
        random = neuropil.noise.random(Stream.KINDS, 1)
        processes = nodes.density.size
        grain = np.clip(random.lognormal(-0.05, 0.4, processes), 0.3, 1.4)
        self._granularity = grain.astype(np.float32)
        full = np.where(random.random(processes) < 0.35, random.uniform(0.3, 1, processes), 0.04)
        self._vesicles = full[nodes.process] * nodes.radius**2 / 100  # expected, per node
        self._bodies = self._make_bodies()
        bundled = random.random(processes)[nodes.process] < 0.6
        count = np.where(bundled, random.poisson(np.minimum(nodes.radius**2 / 70, 45)), 0)
        self._tubule = np.repeat(np.arange(count.size, dtype=np.int32), count)
        self._tubule_offset = _in_disc(random, 1.15 * nodes.radius[self._tubule])

    def render(self, z: int, box: Box) -> F32:
        """Return the light that the part `box` of section z lets through, 0..255.

        A pixel does not depend on the box that it is drawn in.
        """
        slab = self._neuropil.slab(z)
        textures = {
            stream: self._neuropil.noise.surface(stream, (z,), spacing, persistence)[0, 0]
            for stream, (spacing, persistence) in _TEXTURES.items()
        }
        # On multiples of the halo, so that the structure's coarse grid always lies the same.
        top, left = (n - n % _HALO for n in box[:2])
        bottom, right = (n + -n % _HALO for n in box[2:])
        image = np.empty((bottom - top, right - left), np.float32)
        for y in range(top, bottom, _BLOCK):
            for x in range(left, right, _BLOCK):
                end_y, end_x = min(y + _BLOCK, bottom), min(x + _BLOCK, right)
                around = (y - _HALO, x - _HALO, end_y + _HALO, end_x + _HALO)
                inner = self._draw(slab, textures, around)[_HALO:-_HALO, _HALO:-_HALO]
                image[y - top : end_y - top, x - left : end_x - left] = inner
        return image[box[0] - top : box[2] - top, box[1] - left : box[3] - left]

    def _draw(self, slab: Slab, textures: Textures, box: Box) -> F32:
        rows, columns = np.arange(box[0], box[2]), np.arange(box[1], box[3])
        cut = self._neuropil.cut(slab, rows, columns)
        texture = {
            stream: self._neuropil.noise.evaluate(surface, _TEXTURES[stream][0], rows, columns)
            for stream, surface in textures.items()
        }
        white = self._white_noise(slab.z, box)
        fine, grain = (_unit_blur(white, sigma) for sigma in (0.65, 1.0))
        density = self._cytoplasm(cut, texture, grain)
        self._add_bodies(density, slab, cut, texture[Stream.CRISTAE])
        self._add_dots(density, slab, cut, box)
        density += _membranes(cut, texture, grain)
        stain = texture[Stream.STAIN]
        density += np.float32(0.08) * stain * (1 + density) + np.float32(0.12) * fine
        # Stain and grain may leave less than nothing: no brighter than the empty slot.
        light = np.float32(212) * np.exp(-np.maximum(density, np.float32(-0.18)))
        return cv2.GaussianBlur(light, (0, 0), 0.5).astype(np.float32)

    def _white_noise(self, z: int, box: Box) -> F32:
        """Return unit white noise that belongs to the tissue, not to the block."""
        first, last = (n // _GRAIN for n in box[:2]), (-(-n // _GRAIN) for n in box[2:])
        (top, left), (bottom, right) = first, last
        whole = np.block(
            [
                [
                    self._neuropil.noise.random(Stream.GRAIN, z, i, j).standard_normal(
                        (_GRAIN, _GRAIN), np.float32
                    )
                    for j in range(left, right)
                ]
                for i in range(top, bottom)
            ]
        )
        y, x = box[0] - top * _GRAIN, box[1] - left * _GRAIN
        return whole[y : y + box[2] - box[0], x : x + box[3] - box[1]]

    def _cytoplasm(self, cut: Cut, texture: Textures, grain: F32) -> F32:
        """Return the optical density of cytoplasm, its granules and its reticulum."""
        tone = self._neuropil.nodes.density
        share = np.clip(0.5 + cut.gap / (2 * cut.tilt + 2), 0, 1)
        density = share * tone[cut.process] + (1 - share) * tone[cut.other]
        within = np.clip((cut.gap - np.float32(0.6) * cut.tilt - 3) / 3, 0, 1)
        cloud = texture[Stream.CLOUD] + texture[Stream.FINE_CLOUD]
        specks = np.maximum(grain - np.float32(0.75) + np.float32(0.4) * cloud, 0)
        granules = np.float32(0.06) * cloud + np.float32(0.34) * specks
        density += within * self._granularity[cut.process] * granules
        sheets = np.exp(-0.5 * (texture[Stream.RETICULUM] / np.float32(0.1)) ** 2)
        density += np.float32(0.35) * within * sheets * np.clip(cloud - np.float32(0.9), 0, 1)
        return density

    def _make_bodies(self) -> _Bodies:
        radius = self._neuropil.nodes.radius
        random = self._neuropil.noise.random(Stream.KINDS, 2)
        kind = random.random(radius.size)
        node = np.flatnonzero((radius > 13) & (kind < 0.62)).astype(np.int32)
        dark, room, n = kind[node] < 0.38, radius[node], node.size
        half_axis = np.minimum(
            np.where(dark, random.uniform(17, 34, n), random.uniform(6, 17, n)),
            np.where(dark, 0.85, 0.6) * room,
        )
        half_height = np.where(dark, random.uniform(5, 14, n), random.uniform(1.5, 4, n))
        numbers = {
            "offset": random.normal(0, 0.4, (n, 2)) * np.maximum(room - half_axis, 3)[:, None],
            "half_axis_px": half_axis,
            "elongation": np.where(dark, random.uniform(1, 2.3, n), random.uniform(1, 1.7, n)),
            "angle": random.uniform(0, math.pi, n),
            "half_height": half_height,
            "period": 2 * half_height + random.uniform(2, 20, n),
            "phase": random.random(n),
            "density": np.where(random.random(n) < 0.6, random.uniform(0.4, 0.65, n), 0.22),
            "crista_px": random.uniform(8, 12, n),
        }
        return _Bodies(
            node, dark, **{name: value.astype(np.float32) for name, value in numbers.items()}
        )

    def _add_bodies(self, density: F32, slab: Slab, cut: Cut, uneven: F32) -> None:
        """Draw mitochondria and vacuoles into the optical `density`."""
        bodies, nodes = self._bodies, self._neuropil.nodes
        height = ((slab.z / bodies.period + bodies.phase) % 1 - 0.5) * bodies.period
        height /= bodies.half_height
        centre = slab.position[1, bodies.node] + bodies.offset
        largest = bodies.half_axis_px * bodies.elongation + 8
        seen = (np.abs(height) < 0.98) & (slab.weight[1, bodies.node] > 8)
        for axis, bent in enumerate((cut.y, cut.x)):
            seen &= np.abs(centre[:, axis] - np.clip(centre[:, axis], bent.min(), bent.max())) < (
                largest
            )
        for k in np.flatnonzero(seen):
            narrow = np.float32(math.sqrt(1 - height[k] ** 2))
            b = bodies.half_axis_px[k] * narrow
            a = b * bodies.elongation[k]
            window = _window(cut, centre[k], a + 8)
            if window is None:
                continue
            dy, dx = cut.y[window] - centre[k, 0], cut.x[window] - centre[k, 1]
            cos, sin = np.cos(bodies.angle[k]), np.sin(bodies.angle[k])
            along, across = cos * dy + sin * dx, cos * dx - sin * dy
            wobble = uneven[window]
            depth = (1 - np.hypot(along / a, across / b)) * b + np.float32(1.2) * wobble
            # Kept inside its process by a soft minimum with the distance to the membrane.
            process = nodes.process[bodies.node[k]]
            room = np.where(cut.process[window] == process, cut.gap[window] - 6, np.float32(-20))
            depth = -3 * np.logaddexp(-depth / 3, -room / 3)
            # Where the ellipsoid closes, its outline moves within the section and is blurred.
            steep = abs(height[k]) / narrow * bodies.half_axis_px[k] / bodies.half_height[k]
            smear = np.float32(1 + min(6.0, 0.5 * steep))
            into = density[window]
            if bodies.is_mitochondrion[k]:
                matrix = nodes.density[process] + bodies.density[k]
                stripes = across * (2 * math.pi / bodies.crista_px[k]) + 2 * wobble
                _add_mitochondrion(into, depth, smear, matrix, stripes, wobble)
            else:
                _add_vacuole(into, depth, smear)

    def _dots(self, slab: Slab) -> tuple[I32, F32, F32, NDArray[np.bool_]]:
        """Return vesicles and microtubules: node, offset (n, 2), radius (px), whether filled."""
        radius = self._neuropil.nodes.radius
        tubules = self._tubule.size
        found = [
            (self._tubule, self._tubule_offset, np.full(tubules, 2.2), np.zeros(tubules, bool))
        ]
        for z in (slab.z - 1, slab.z, slab.z + 1):
            random = self._neuropil.noise.random(Stream.VESICLES, z)
            count = random.poisson(self._vesicles)
            node = np.repeat(np.arange(count.size, dtype=np.int32), count)
            offset = _in_disc(random, 1.2 * radius[node])
            filled = random.random(node.size) < 0.04  # with a dense core
            size = random.normal(4.6, 0.7, node.size) * np.where(filled, 1.25, 1)
            # As thick as a section: a third of them are cut twice, the second time near a pole.
            seen = (random.random(node.size) < 0.35) | (z == slab.z)
            size *= 1 if z == slab.z else 0.55
            found.append((node[seen], offset[seen], size[seen], filled[seen]))
        node, offset, size, filled = (np.concatenate(part) for part in zip(*found, strict=True))
        return node, offset, size.astype(np.float32), filled

    def _add_dots(self, density: F32, slab: Slab, cut: Cut, box: Box) -> None:
        """Draw vesicles and microtubules into the optical `density`."""
        node, offset, radius, filled = self._dots(slab)
        pixel = self._neuropil.unbend(slab, self._neuropil.nodes.home[node] + offset)
        pixel -= np.array(box[:2], np.float32)
        corner = np.floor(pixel).astype(np.int64)
        inside = np.all((corner >= _DOT) & (corner < np.array(density.shape) - _DOT), axis=1)
        node, radius, pixel, corner = node[inside], radius[inside], pixel[inside], corner[inside]
        at = (corner[:, 0], corner[:, 1])
        free = (cut.process[at] == self._neuropil.nodes.process[node]) & (
            cut.gap[at] > radius + 3.5
        )
        radius, pixel, corner = radius[free], pixel[free], corner[free]
        filled = filled[inside][free]
        step = np.arange(1 - _DOT, _DOT + 1)
        dy, dx = ((step + (corner - pixel)[:, axis, None]).astype(np.float32) for axis in (0, 1))
        distance = np.hypot(dy[:, :, None], dx[:, None, :]) - radius[:, None, None]
        ring = np.float32(0.6) * np.exp(-0.5 * distance**2)
        disc = np.float32(0.95) / (1 + np.exp(np.clip(2 * distance, -30, 30)))
        stamp = np.where(filled[:, None, None], disc, ring)
        height, width = density.shape
        y, x = (corner[:, axis, None] + step for axis in (0, 1))
        index = y[:, :, None] * width + x[:, None, :]
        density += np.bincount(index.ravel(), stamp.ravel(), height * width).reshape(height, width)


def _unit_blur(white: F32, sigma: float) -> F32:
    """Blur unit white noise to unit noise of that size."""
    blurred: F32 = cv2.GaussianBlur(white, (0, 0), sigma).astype(np.float32)
    return blurred * np.float32(2 * math.sqrt(math.pi) * sigma)


def _in_disc(random: np.random.Generator, radius: F32) -> F32:
    """Return one uniformly random offset (n, 2) within each radius."""
    distance = radius * np.sqrt(random.random(radius.size))
    angle = random.uniform(0, 2 * math.pi, radius.size)
    return np.stack([distance * np.sin(angle), distance * np.cos(angle)], axis=1).astype(np.float32)


def _membranes(cut: Cut, texture: Textures, grain: F32) -> F32:
    """Return the optical density of membranes, synapses, and what lies where three cells meet."""
    synapse = smoothstep((texture[Stream.SYNAPSE] - np.float32(1.7)) / np.float32(0.9))
    half_width = np.float32(1.7) + np.float32(0.35) * np.clip(texture[Stream.MEMBRANE], -1.5, 2)
    membrane = seen_through(cut.gap, cut.tilt, half_width + np.float32(2.5) * synapse)
    corner = np.maximum(cv2.GaussianBlur(membrane, (0, 0), 3.5) - np.float32(0.62), 0)
    dark = np.float32(1.3) * (1 + synapse / 4) * (1 + np.float32(0.22) * grain)
    return dark * membrane + np.float32(0.6) * corner


def seen_through(gap: F32, tilt: F32, half_width: F32) -> F32:
    """Return how dark a membrane is whose distance runs from gap - tilt to gap + tilt, 0..1.

    The mean over the section's thickness of a box of the given half width (px) with logistic
    edges, which has a closed form.
    """
    dark = np.zeros_like(gap)
    near = np.abs(gap) < tilt + 8
    g, t, h = gap[near], tilt[near], half_width[near]

    def integral(x: F32) -> F32:
        x = np.clip(x, -16, 16)
        rise, fall = np.exp(2 / _EDGE * (x + h)), np.exp(2 / _EDGE * (x - h))
        return _EDGE / 2 * np.log((1 + rise) / (1 + fall))

    dark[near] = (integral(g + t) - integral(g - t)) / (2 * t)
    return dark


def _window(cut: Cut, centre: F32, reach: np.float32) -> tuple[slice, slice] | None:
    """Return the smallest known box of pixels with all bent coordinates within reach, if any."""
    step = 8
    # Bending stretches two pixels that are `step` apart by no more than to twice that.
    reach = reach + 2 * step
    near = np.hypot(cut.y[::step, ::step] - centre[0], cut.x[::step, ::step] - centre[1]) < reach
    rows, columns = near.any(axis=1).nonzero()[0], near.any(axis=0).nonzero()[0]
    if not rows.size:
        return None
    return (
        slice(step * rows[0], step * (rows[-1] + 1)),
        slice(step * columns[0], step * (columns[-1] + 1)),
    )


def _add_mitochondrion(
    density: F32, depth: F32, smear: np.float32, matrix: np.float32, stripes: F32, wobble: F32
) -> None:
    """Draw a mitochondrion: its matrix, two membranes and cristae along `stripes` (rad)."""
    density += np.float32(0.85) * _inside(depth, smear) * (matrix - density)
    crista = np.maximum(np.cos(stripes), 0) ** 3 - np.float32(0.2)
    broken = np.clip(np.float32(0.3) + np.float32(0.6) * np.abs(wobble), 0, 1)
    density += np.float32(0.6) * np.clip((depth - 4) / 3, 0, 1) * broken * crista
    inner = np.exp(-0.5 * ((depth - 5) / np.float32(1.2)) ** 2) / smear
    density += np.float32(0.85) * _outline(depth, smear) + np.float32(0.45) * inner


def _add_vacuole(density: F32, depth: F32, smear: np.float32) -> None:
    density += np.float32(0.6) * _inside(depth, smear) * (np.float32(0.12) - density)
    density += np.float32(0.5) * _outline(depth, smear)


def _inside(depth: F32, smear: np.float32) -> F32:
    return 1 / (1 + np.exp(np.clip(-2 * depth / smear, -30, 30)))


def _outline(depth: F32, smear: np.float32) -> F32:
    return np.exp(-0.5 * (depth / (np.float32(0.7) + smear / 2)) ** 2) / np.sqrt(smear)
