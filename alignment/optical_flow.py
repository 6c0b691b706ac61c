"""Optical flow of a neighbourhood: the smooth motion that two pictures have in common."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]


def smooth_flow(before: F32, after: F32, *, window_px: float, rounds: int = 6) -> F32:
    """Return the smooth displacement that takes `before` to `after`.

    Parameters
    ----------
    before, after : float32 ndarray of shape (ny, nx)
        Pictures of zero mean.
    window_px : float
        Standard deviation of the Gaussian window within which the motion is one translation.
    rounds : int
        Of moving `after` back by what was found and looking again.

    Returns
    -------
    float32 ndarray of shape (2, ny, nx)
        (dy, dx) px: what `before` shows at p, `after` shows at p + flow.

    References
    ----------
    B. D. Lucas, T. Kanade, "An Iterative Image Registration Technique with an Application to Stereo
    Vision", IJCAI 1981.
    """
    flow = np.zeros((2, *before.shape), np.float32)
    for _ in range(rounds):
        moved = move_back(after, flow)
        dy, dx = np.gradient((before + moved) / 2)
        error = before - moved
        products = np.stack([dy * dy, dy * dx, dx * dx, dy * error, dx * error])
        yy, yx, xx, y, x = (cv2.GaussianBlur(one, (0, 0), window_px) for one in products)
        # A little damping, so that featureless places take the value of their surroundings.
        damping = np.float32(0.02) * (yy + xx) + np.float32(1e-6)
        yy, xx = yy + damping, xx + damping
        flow += np.stack([xx * y - yx * x, yy * x - yx * y]) / (yy * xx - yx * yx)
    return flow


def move_back(after: F32, flow: F32) -> F32:
    """Return at every pixel p what `after` shows at p + flow."""
    rows, columns = np.indices(after.shape, np.float32)
    at = columns + flow[1], rows + flow[0]
    return cv2.remap(after, *at, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT).astype(np.float32)
