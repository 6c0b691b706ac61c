from __future__ import annotations

import pickle

import numpy as np
import pytest

import storage
from storage import store, volume
from storage.aligned import Voxels, open_aligned
from storage.cache import open_cache
from storage.errors import CorruptError, MismatchError, MissingError
from storage.grid import Box, tile
from storage.publish import publish

SHAPE = (5, 100, 70)


def _run(root: str, key: str, seed: int):
    """Write a run of two levels and return their voxels."""
    levels = volume.create_image(
        store.join(root, "runs", key, "aligned"), shape=SHAPE, chunk=(2, 16, 16),
        shard=(4, 64, 64), resolution_nm=(40.0, 4.0, 5.0), mips=2, name=key,
    )  # fmt: skip
    random = np.random.default_rng(seed)
    images = []
    for array in levels:
        image = random.integers(0, 256, array.shape).astype(np.uint8)
        for box in tile(array.shape, volume.write_unit(array), mip=0):
            volume.write(array, box, image[box.slices])
        images.append(image)
    return images


def test_voxels_and_coordinates(root):
    images = _run(root, "a", 0)
    publish(root, "a")
    for mip, image in enumerate(images):
        aligned = open_aligned(root, mip=mip)
        assert aligned.dims == ("z", "y", "x")
        assert aligned.dtype == np.uint8
        np.testing.assert_array_equal(aligned.values, image)
        assert aligned.attrs["run"] == "a"
        assert aligned.y.attrs["units"] == "nm"
        np.testing.assert_allclose(aligned.z, 40.0 * np.arange(5))
    np.testing.assert_allclose(open_aligned(root).y[:3], [0, 4, 8])
    np.testing.assert_allclose(open_aligned(root, mip=1).y[:3], [2, 10, 18])
    np.testing.assert_allclose(open_aligned(root, mip=1).x[:2], [2.5, 12.5])


@pytest.mark.parametrize(
    "index",
    [
        (slice(1, 4), slice(10, 90), slice(3, 66)),
        (2, slice(None), slice(None)),
        (slice(None), 99, 69),
        (slice(None, None, 2), slice(5, 80, 7), slice(60, 2, -3)),
        (slice(4, None), slice(None), slice(None, None, -1)),
        (-1, -1, -1),
        (slice(2, 2), slice(None), slice(None)),
        (slice(None), [3, 90, 4], slice(None)),
    ],
)
def test_any_selection_is_numpys(tmp_path, index):
    image = _run(str(tmp_path), "a", 0)[0]
    aligned = open_aligned(f"{tmp_path}/runs/a")
    np.testing.assert_array_equal(aligned[index].values, image[index])


@pytest.mark.parametrize(
    "index",
    [
        (slice(None, None, 2), slice(5, 80, 7), slice(60, 2, -3)),
        (slice(4, None), -1, slice(None, None, -1)),
        (slice(2, 2), 0, slice(-3, None)),
    ],
)
def test_indices_that_dask_fuses_are_numpys(tmp_path, index):
    image = _run(str(tmp_path), "a", 0)[0]
    voxels = Voxels(volume.open_array(f"{tmp_path}/runs/a/aligned", "0"))
    np.testing.assert_array_equal(voxels[index], image[index])


def test_selection_in_nanometres(tmp_path):
    image = _run(str(tmp_path), "a", 0)[0]
    aligned = open_aligned(f"{tmp_path}/runs/a")
    section = aligned.sel(z=81.0, method="nearest").sel(y=slice(40, 60))
    np.testing.assert_array_equal(section.values, image[2, 10:16])


def test_only_what_is_selected_is_read(tmp_path):
    _run(str(tmp_path), "a", 0)
    aligned = open_aligned(f"{tmp_path}/runs/a")
    (tmp_path / "runs/a/aligned/0/c/1/1/1").unlink()
    aligned[:4].load()
    with pytest.raises(MissingError, match="c/1/1/1"):
        aligned[4, 99].load()


def test_damage_is_an_error_here_too(tmp_path):
    _run(str(tmp_path), "a", 0)
    shard = tmp_path / "runs/a/aligned/0/c/0/0/0"
    data = bytearray(shard.read_bytes())
    data[1000] ^= 4
    shard.write_bytes(data)
    with pytest.raises(CorruptError, match="is damaged"):
        open_aligned(f"{tmp_path}/runs/a").mean().compute()


def test_an_open_volume_stays_with_its_run(root):
    first, second = _run(root, "a", 0)[0], _run(root, "b", 1)[0]
    publish(root, "a")
    opened = open_aligned(root)
    publish(root, "b")
    np.testing.assert_array_equal(opened.values, first)
    np.testing.assert_array_equal(open_aligned(root).values, second)


def test_a_volume_can_be_sent_to_a_worker(tmp_path):
    image = _run(str(tmp_path), "a", 0)[0]
    arrived = pickle.loads(pickle.dumps(open_aligned(f"{tmp_path}/runs/a")))
    np.testing.assert_array_equal(arrived.values, image)


def test_blocks_are_small_and_whole_chunks(tmp_path):
    volume.create_image(
        f"{tmp_path}/aligned", shape=(64, 9000, 9000), chunk=(32, 128, 128),
        shard=(32, 2048, 2048), resolution_nm=(40.0, 4.0, 4.0), mips=1, name="large",
    )  # fmt: skip
    blocks = open_aligned(tmp_path).data.chunks
    assert {blocks[0][0], blocks[1][0], blocks[2][0]} == {32, 1024, 2048}
    assert 32 * 1024 * 2048 <= 64 * 2**20


def test_nothing_published_is_named(root):
    with pytest.raises(MissingError, match="has no published run"):
        open_aligned(root)
    with pytest.raises(MissingError, match="has no published run"):
        open_aligned(store.join(root, "runs/a"))


def test_levels_that_are_not_there(tmp_path):
    _run(str(tmp_path), "a", 0)
    with pytest.raises(MismatchError, match="has the mips 0 to 1; got mip 2"):
        open_aligned(f"{tmp_path}/runs/a", mip=2)


def test_the_package_offers_it():
    assert storage.open_aligned is open_aligned
    with pytest.raises(AttributeError, match="no attribute 'open_algined'"):
        storage.open_algined  # noqa: B018


def test_a_volume_is_read_through_the_cache(s3_root, tmp_path):
    run_uri = store.join(s3_root, "runs", "a")
    (level,) = volume.create_image(
        store.join(run_uri, "aligned"), shape=(4, 64, 64), chunk=(2, 32, 32), shard=(4, 64, 64),
        resolution_nm=(40.0, 4.0, 4.0), mips=1, name="a",
    )  # fmt: skip
    voxels = np.random.default_rng(0).integers(1, 255, level.shape, dtype=np.uint8)
    volume.write(level, Box((0, 0, 0), (4, 64, 64), 0), voxels)
    publish(s3_root, "a")
    cache = open_cache(str(tmp_path / "cache"), 2**26)
    assert (open_aligned(s3_root, cache=cache).compute() == voxels).all()
    store.delete(store.join(run_uri, "aligned/0/c/0/0/0"))
    assert (open_aligned(s3_root, cache=cache).compute() == voxels).all()
    with pytest.raises(MissingError):
        open_aligned(s3_root).compute()
