"""Views: sections as the coarse stage compares them, and the correlation of two of them.

A view is small (its longer side is chosen, not its mip), so that sections of any size cost the same
and look alike to whatever compares them.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft

from alignment.affines import Affine
from alignment.config import FeaturesConfig
from alignment.features import normalise

_LEAST_SIDE_PX = 64  # of a view; a long strip keeps it
_WHITENING = 0.5  # 0: plain correlation, broad peaks; 1: phase correlation, all noise
_LEAST_OVERLAP = 0.2  # of the smaller section; less tissue than this proves nothing
_MASK_STEP_PX = 4  # overlaps change slowly, so they are counted on a coarser grid


class View(NamedTuple):
    """A section as it is compared: reduced, band-passed, with its local contrast taken out."""

    image: NDArray[np.float32]
    """(y, x), in local standard deviations; 0 where not valid."""
    valid: NDArray[np.bool_]
    """(y, x)"""
    from_section: Affine
    """Takes px of the section to px of the view."""


def make_view(
    image: NDArray[np.uint8],
    valid: NDArray[np.bool_],
    *,
    side_px: int,
    sigma_fine_px: float,
    sigma_coarse_px: float,
) -> View:
    """Reduce a section to at most `side_px` (longer side) and normalise it.

    Parameters
    ----------
    image : uint8 ndarray of shape (ny, nx)
    valid : bool ndarray of shape (ny, nx)
    side_px : int
        Longer side of the view; a long strip keeps a short side of at least 64 px.
    sigma_fine_px, sigma_coarse_px : float
        Band of detail that is kept, px of the view.

    Examples
    --------
    >>> section = np.random.default_rng(0).integers(1, 255, (300, 200), dtype=np.uint8)
    >>> view = make_view(
    ...     section, section > 0, side_px=150, sigma_fine_px=1, sigma_coarse_px=7
    ... )
    >>> view.image.shape, view.from_section.tolist()
    ((150, 100), [[0.5, 0.0, -0.25], [0.0, 0.5, -0.25]])
    """
    ny, nx = image.shape
    scale = min(1.0, max(side_px / max(ny, nx), _LEAST_SIDE_PX / min(ny, nx)))
    shape = round(ny * scale), round(nx * scale)
    if shape != image.shape:
        weight = valid.astype(np.float32)
        known = cv2.resize(weight, shape[::-1], interpolation=cv2.INTER_AREA)
        grey = cv2.resize(image * weight, shape[::-1], interpolation=cv2.INTER_AREA)
        image = np.rint(grey / np.maximum(known, 1e-3)).astype(np.uint8)
        valid = known > 0.5
    band = FeaturesConfig(sigma_fine_px=sigma_fine_px, sigma_coarse_px=sigma_coarse_px)
    sy, sx = shape[0] / ny, shape[1] / nx
    from_section = np.array([[sy, 0, (sy - 1) / 2], [0, sx, (sx - 1) / 2]])
    return View(normalise(image, valid, band), valid, from_section)


def pull(image: NDArray[np.float32], matrix: Affine, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return ``out[p] = image[matrix(p)]``, bilinear, 0 outside `image`."""
    matrix_xy = matrix[::-1, [1, 0, 2]]
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(image, matrix_xy, shape[::-1], flags=flags), np.float32)


def warped(
    moving: View, matrix: Affine, shape: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the moving view in the fixed view's frame, and the share of each pixel it covers."""
    return pull(moving.image, matrix, shape), pull(moving.valid.astype(np.float32), matrix, shape)


class Correlator:
    """Significance of the correlation with one image, at every shift.

    Half-whitened cross-correlation, divided by the square root of the overlap: noise then has the
    same strength at every shift, and a peak is worth the more, the more tissue supports it.
    """

    def __init__(self, fixed: View, shape: tuple[int, int]) -> None:
        """Prepare for moving images of up to `shape`."""
        self._shape = fixed.image.shape
        self._side = _MASK_STEP_PX * fft.next_fast_len(
            -(-(max(self._shape) + max(shape)) // _MASK_STEP_PX), real=True
        )
        self._spectrum = self._whitened(fixed.image)
        self._mask_spectrum = self._spectrum_of_mask(fixed.valid.astype(np.float32))
        self._area = int(np.count_nonzero(fixed.valid))

    def __call__(
        self, image: NDArray[np.float32], valid: NDArray[np.float32], moving_area: float
    ) -> NDArray[np.float32]:
        """Return the significance, (side, side), at [dy, dx] for image[p] == fixed[p + (dy, dx)].

        Shifts are circular: row -1 is dy = -1. It is 0 where the overlap is less than a fifth of
        the smaller section; `moving_area` is the valid area of the moving one before its warp, px.
        """
        n = self._side
        surface = fft.irfft2(self._spectrum * np.conj(self._whitened(image)), s=(n, n))
        n_mask = n // _MASK_STEP_PX
        overlap = fft.irfft2(
            self._mask_spectrum * np.conj(self._spectrum_of_mask(valid)), s=(n_mask, n_mask)
        )
        # Enlarging by cv2 shifts the overlap by less than 2 px, which does not matter to it.
        overlap = cv2.resize(overlap, (n, n), interpolation=cv2.INTER_LINEAR)
        least = max(_LEAST_OVERLAP * min(self._area, moving_area), 1.0)
        enough = overlap >= least
        if not enough.any():
            return np.zeros((n, n), np.float32)
        surface *= enough / np.sqrt(np.maximum(overlap, least))
        noise = float(np.sqrt(np.mean(np.square(surface[enough]), dtype=np.float64)))
        return surface / np.float32(max(noise, 1e-12))

    def shift(self, index: int) -> tuple[int, int]:
        """Return (dy, dx) of a flat index into the surface."""
        ny, nx = self._shape
        dy, dx = divmod(index, self._side)
        return dy - self._side * (dy >= ny), dx - self._side * (dx >= nx)

    def _whitened(self, image: NDArray[np.float32]) -> NDArray[np.complex64]:
        spectrum = fft.rfft2(image, s=(self._side, self._side))
        return spectrum / np.maximum(np.abs(spectrum), np.float32(1e-6)) ** _WHITENING

    def _spectrum_of_mask(self, valid: NDArray[np.float32]) -> NDArray[np.complex64]:
        side = self._side // _MASK_STEP_PX
        ny, nx = (-(-n // _MASK_STEP_PX) * _MASK_STEP_PX for n in valid.shape)
        padded = np.zeros((ny, nx), np.float32)
        padded[: valid.shape[0], : valid.shape[1]] = valid
        blocks = padded.reshape(ny // _MASK_STEP_PX, _MASK_STEP_PX, nx // _MASK_STEP_PX, -1)
        # A mask on the coarse grid, in px of the fine one: both factors are areas.
        return fft.rfft2(blocks.sum(axis=(1, 3)) / _MASK_STEP_PX, s=(side, side))
