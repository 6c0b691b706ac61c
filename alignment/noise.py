"""Random numbers of a made-up tissue, smooth from section to section; any section on its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import IntEnum, auto

import numpy as np
from numpy.typing import NDArray

from alignment.splines import Coordinates, evaluate_surfaces

F32 = NDArray[np.float32]

MARGIN_PX = 160
"""Surfaces go this far beyond the tissue asked for."""

_OFFSET = 1 << 20  # seeds are not negative, but noise is drawn for sections before the first too
_SPLINE_STD = np.float32(0.479)  # of a cubic B-spline surface with unit random coefficients


class Stream(IntEnum):
    """Independent random numbers, one stream per use."""

    PLACES = auto()
    KINDS = auto()
    PATH_OF_PROCESS = auto()
    PATH_OF_NODE = auto()
    SIZE = auto()
    LIFE = auto()
    FOLDING = auto()
    UNDULATION = auto()
    WAVE = auto()
    RIPPLE = auto()
    STAIN = auto()
    CLOUD = auto()
    FINE_CLOUD = auto()
    MEMBRANE = auto()
    SYNAPSE = auto()
    RETICULUM = auto()
    CRISTAE = auto()
    VESICLES = auto()
    GRAIN = auto()


class Noise:
    """The random numbers and surfaces of one tissue.

    Parameters
    ----------
    extent : (y0, x0, y1, x1)
        The tissue that is going to be drawn, px.
    seed : int

    Attributes
    ----------
    origin_yx : tuple of int
        Where surfaces begin, px: `MARGIN_PX` before the tissue.
    size_yx : tuple of int
        How far they go, px.
    """

    def __init__(self, extent: tuple[int, int, int, int], seed: int) -> None:
        self._seed = seed
        y0, x0, y1, x1 = extent
        self.origin_yx = (y0 - MARGIN_PX, x0 - MARGIN_PX)
        self.size_yx = (y1 - y0 + 2 * MARGIN_PX, x1 - x0 + 2 * MARGIN_PX)

    def random(self, *key: int) -> np.random.Generator:
        """Return the random numbers of a stream, and of whatever else the key tells apart."""
        return np.random.default_rng([self._seed, *(k + _OFFSET for k in key)])

    def surface(
        self,
        stream: Stream,
        times: Sequence[float],
        spacing: int,
        persistence: float,
        components: int = 1,
    ) -> F32:
        """Return unit random surfaces as coefficients (times, components, gy, gx).

        They change with time (in sections) like ``exp(-d^2 / (4 persistence^2))``.
        """
        shape = tuple(n // spacing + 4 for n in self.size_yx)
        return self.smooth(stream, times, (components, *shape), persistence) / _SPLINE_STD

    def evaluate(self, surface: F32, spacing: int, rows: Coordinates, columns: Coordinates) -> F32:
        """Return surfaces (..., gy, gx) on a grid of tissue pixels, (..., ny, nx)."""
        return evaluate_surfaces(surface, spacing, self.origin_yx, rows, columns)

    def smooth(
        self, stream: Stream, times: Sequence[float], shape: tuple[int, ...], persistence: float
    ) -> F32:
        """Return unit Gaussian noise (times, *shape) that is smooth in z.

        A weighted sum of white noise that belongs to the whole sections around, so every time can
        be had on its own.
        """
        at = np.asarray(times, np.float64)
        reach = 3 * persistence
        sections = range(math.floor(at.min() - reach), math.ceil(at.max() + reach) + 1)
        away = np.abs(at[:, None] - np.array(sections))
        # What is out of reach counts nothing, so a time is the same whichever others are asked for.
        weights = np.where(away <= reach, np.exp(-0.5 * (away / persistence) ** 2), 0)
        weights /= np.sqrt(np.sum(weights**2, axis=1, keepdims=True))
        result = np.zeros((at.size, *shape), np.float32)
        for k, weight in zip(sections, weights.astype(np.float32).T, strict=True):
            white = self.random(stream, k).standard_normal(shape, np.float32)
            result += weight.reshape(-1, *(1,) * len(shape)) * white
        return result
