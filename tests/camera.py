"""A made-up camera: tiles cut from a made-up section at places that are known."""

import os
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from alignment.phantom import Phantom, PhantomConfig


@lru_cache(maxsize=1)
def tissue():
    """One section of neuropil, float32 (1100, 1100), without noise."""
    config = PhantomConfig(sections=1, height=1100, width=1100, seed=5, fold_section=None)
    return Phantom(config).tissue(0)


def photograph(position, *, side=256, seed=0, scene=None):
    """The tile whose first pixel lies at `position` (y, x), with its own noise and brightness."""
    rng = np.random.default_rng(seed)
    y, x = position
    move = np.array([[1, 0, -x], [0, 1, -y]], np.float64)
    scene = tissue() if scene is None else scene
    seen = cv2.warpAffine(scene, move, (side, side), flags=cv2.INTER_LANCZOS4)
    noisy = seen + rng.normal(0, 8, seen.shape) + rng.normal(0, 5)
    return np.clip(np.rint(noisy), 1, 255).astype(np.uint8)


def grid_positions(n=4, *, step=210, jitter=8.0, seed=0):
    """Positions (n * n, 2) of a grid of tiles, off by a random fraction."""
    rng = np.random.default_rng(seed)
    grid = np.array([(20 + i * step, 20 + j * step) for i in range(n) for j in range(n)], float)
    return grid + rng.uniform(-jitter, jitter, grid.shape)


def real_data(name):
    """The folder of a real data set, or a skipped test that names it."""
    root = Path(os.environ.get("ALIGN_TEST_DATA", "../shared/data"))
    if not (root / name).is_dir():
        pytest.skip(f"the data set {name} is not below {root}; set ALIGN_TEST_DATA")
    return root / name
