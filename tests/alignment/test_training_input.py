from __future__ import annotations

from itertools import islice

import numpy as np
import pytest

from alignment.training_input import patches, training_input
from inference.patches import PatchOrder
from storage.cache import open_cache
from storage.grid import Box
from storage.volume import create_array, write

SHAPE = (24, 256, 256)
PATCH = (6, 40, 40)


@pytest.fixture
def array(tmp_path):
    made = create_array(
        str(tmp_path), "a", shape=SHAPE, chunk=(8, 32, 32), shard=(24, 128, 128), dtype=np.uint8,
        fill_value=0, dimension_names=("z", "y", "x"),
    )  # fmt: skip
    voxels = np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)
    write(made, Box((0, 0, 0), SHAPE, 0), voxels)
    return made


@pytest.mark.parametrize("with_cache", [True, False])
def test_the_same_patches_with_and_without_a_cache_and_after_a_stop(array, tmp_path, with_cache):
    pytest.importorskip("tensorflow", reason="the extra `train` is not installed")
    cache = open_cache(str(tmp_path / "cache"), 20_000_000, 2**16) if with_cache else None
    order = PatchOrder(SHAPE, patch=PATCH, seed=3)
    expected = list(patches(array, order, 12))
    with training_input(array, order, batch=2, cache=cache) as first:
        begun = [batch.numpy() for batch in islice(first, 3)]
    with training_input(array, order, batch=2, start=6, cache=cache) as second:
        rest = [batch.numpy() for batch in islice(second, 3)]
    np.testing.assert_array_equal(np.concatenate([*begun, *rest]), expected)
