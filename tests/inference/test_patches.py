from __future__ import annotations

from itertools import islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.patches import PATCH, PatchError, PatchOrder, patch_dataset

SHAPE = (20, 200, 300)


@given(st.integers(0, 2**32), st.integers(1, 7), st.integers(0, 20))
def test_workers_share_one_sequence_whatever_their_number(seed, workers, start):
    alone = list(islice(PatchOrder(SHAPE, seed=seed).corners(), (start + 3) * workers))
    for worker in range(workers):
        order = PatchOrder(SHAPE, seed=seed, worker=worker, workers=workers)
        assert list(islice(order.corners(start), 3)) == alone[worker::workers][start:]


def test_every_corner_is_equally_likely():
    order = PatchOrder((4, 5, 3), patch=(2, 2, 2), seed=3)
    found, counts = np.unique(list(islice(order.corners(), 4800)), axis=0, return_counts=True)
    assert len(found) == 3 * 4 * 2
    assert abs(counts - 200).max() < 5 * np.sqrt(200)


def test_a_corner_of_a_seed_never_changes():
    """Training that was begun with an older version goes on with the same patches."""
    order = PatchOrder((100, 1000, 1000), seed=7)
    assert [order.corner(n) for n in (0, 1, 10**9)] == [
        (72, 248, 353), (6, 585, 249), (10, 637, 106),
    ]  # fmt: skip


def test_what_does_not_fit_is_refused():
    with pytest.raises(PatchError, match="fits"):
        PatchOrder((17, 200, 200))
    with pytest.raises(PatchError, match="worker"):
        PatchOrder(SHAPE, worker=2, workers=2)


def _volume():
    return np.random.default_rng(0).integers(0, 256, SHAPE, np.uint8)


def _reader(voxels, patch=PATCH):
    def read(step, corner):
        return voxels[tuple(slice(c, c + p) for c, p in zip(corner, patch, strict=True))]

    return read


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_dataset_is_the_sequence_in_batches(dtype):
    pytest.importorskip("tensorflow", reason="the extra `train` is not installed")
    voxels, order = _volume(), PatchOrder(SHAPE, seed=1, worker=1, workers=2)
    read = _reader(voxels)
    found = list(islice(patch_dataset(order, read, batch=3, start=4, dtype=dtype), 2))
    expected = np.array([read(n, order.corner(n)) for n in range(4, 10)])
    got = np.concatenate([batch.numpy() for batch in found])
    assert got.dtype == dtype
    assert found[0].shape == (3, *PATCH)
    if dtype == "float32":
        expected = expected.astype(np.float32) / np.float32(255)
    np.testing.assert_array_equal(got, expected)


def test_an_error_of_the_reader_ends_the_iteration():
    tf = pytest.importorskip("tensorflow", reason="the extra `train` is not installed")

    def read(step, corner):
        raise OSError(f"no voxels at {corner}")

    with pytest.raises(tf.errors.OpError, match="no voxels at"):
        next(iter(patch_dataset(PatchOrder(SHAPE), read, batch=1)))
