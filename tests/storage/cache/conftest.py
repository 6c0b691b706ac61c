from __future__ import annotations

import numpy as np
import pytest

from storage import volume
from storage.cache import open_cache
from storage.grid import Box

SHAPE, SHARD, CHUNK = (8, 200, 256), (4, 128, 128), (4, 32, 32)


@pytest.fixture
def cache(tmp_path):
    """A cache of 8 MB in blocks of 64 KiB."""
    return open_cache(str(tmp_path / "cache"), 8_000_000, 2**16)


@pytest.fixture
def voxels():
    return np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)


@pytest.fixture
def array(root, voxels):
    """A sharded array of a run, once on a file system and once in S3."""
    made = volume.create_array(
        root, "aligned/0", shape=SHAPE, chunk=CHUNK, shard=SHARD, dtype=np.uint8, fill_value=0,
        dimension_names=("z", "y", "x"),
    )  # fmt: skip
    volume.write(made, Box((0, 0, 0), SHAPE, mip=0), voxels)
    return made
