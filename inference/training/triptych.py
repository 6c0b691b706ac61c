"""Image, mask and prediction side by side, as the published study shows its network's progress."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from inference.model_file import replace_file

GAP_PX = 4


def triptych(
    image: NDArray[np.float32], labels: NDArray[np.int32], found: NDArray[np.float32]
) -> NDArray[np.uint8]:
    """Return one grey picture of a sample's middle section.

    Parameters
    ----------
    image : ndarray of shape ([z,] y, x, 1)
        Grey values 0 to 1; of what lies around the labels only the middle is shown.
    labels : ndarray of shape ([z,] y', x')
        0 is black, any other class white.
    found : ndarray of shape ([z,] y', x')
        Probability, 0 to 1, of anything but background.
    """
    if labels.ndim == 3:
        middle = labels.shape[0] // 2
        image, labels, found = image[middle], labels[middle], found[middle]
    ny, nx = labels.shape
    y, x = ((n - m) // 2 for n, m in zip(image.shape[:2], (ny, nx), strict=True))
    parts = (image[y : y + ny, x : x + nx, 0], (labels > 0).astype(np.float32), found)
    gap = np.full((ny, GAP_PX), 255, np.uint8)
    greys = [np.rint(np.clip(part, 0, 1) * 255).astype(np.uint8) for part in parts]
    return np.hstack([greys[0], gap, greys[1], gap, greys[2]])


def write_triptych(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write a picture as PNG, whole or not at all."""
    path.parent.mkdir(exist_ok=True)
    _, data = cv2.imencode(".png", picture)
    replace_file(path, data.tobytes())
