"""Stacks of smooth random displacement fields, and the matches that they cause."""

import numpy as np

from alignment.fields import evaluate, grid_points, node_grid
from alignment.relax import PairMatches


class KnownFields:
    """Truth: section z's coarse-frame point p shows the tissue at ``p + push(z, p)``.

    Each component of a push is a sum of random waves with the spectrum of a Gaussian random field:
    95 % of the displacements are shorter than `px`, and they correlate over `length_px`.
    """

    def __init__(self, nz, *, px=10.0, length_px=120.0, seed=0, waves=48):
        random = np.random.default_rng(seed)
        self.nz = nz
        self._frequency = random.normal(size=(nz, waves, 2)) / length_px
        self._phase = random.uniform(0, 2 * np.pi, (nz, waves))
        self._amplitude = random.normal(size=(nz, waves, 2)) * px / 2.45 * np.sqrt(2 / waves)

    def push(self, z, points):
        waves = np.sin(points @ self._frequency[z].T + self._phase[z])
        return waves @ self._amplitude[z]

    def matches(self, side_px, spacing_px, *, d, noise_px=0.7, wrong=0.05, missing=0.2, seed=1):
        """Matches of all pairs (z, d) as a matcher would find them, with noise and outliers."""
        random = np.random.default_rng((seed, d))
        ny, nx = node_grid((side_px, side_px), spacing_px)
        points = grid_points(ny, nx, spacing_px)
        pairs = []
        for z in range(d, self.nz):
            tissue = points + self.push(z, points)
            there = points.copy()
            for _ in range(20):
                there = tissue - self.push(z - d, there)
            match = there - points + random.normal(scale=noise_px, size=points.shape)
            outlier = random.random(len(points)) < wrong
            match[outlier] += random.uniform(-30, 30, (outlier.sum(), 2))
            match[random.random(len(points)) < missing] = np.nan
            pairs.append(PairMatches(z, d, match.T.reshape(2, ny, nx).astype(np.float32)))
        return pairs

    def misplaced(self, fields, spacing_px, points):
        """Where each section shows its tissue at some aligned points, against the truth, px.

        (nz, n, 2), up to a displacement that all sections share.
        """
        places = []
        for z, field in enumerate(fields):
            coarse = points + evaluate(field, spacing_px, points)
            places.append(coarse + self.push(z, coarse))
        return np.stack(places) - points


def neighbour_errors(misplaced, distance=1):
    """Lengths (n,) of how far sections `distance` apart lie off each other."""
    return np.hypot(*np.moveaxis(misplaced[distance:] - misplaced[:-distance], -1, 0)).ravel()


def inner_points(side_px, *, step_px=16, margin_px=32):
    """Points of a canvas, away from its border."""
    lines = np.arange(margin_px, side_px - margin_px, step_px, dtype=float)
    return np.stack(np.meshgrid(lines, lines, indexing="ij"), axis=-1).reshape(-1, 2)
