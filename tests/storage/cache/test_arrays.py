from __future__ import annotations

import pickle

import numpy as np
import pytest
import zarr

from storage import store, volume
from storage.cache.arrays import FOREIGN_MAX_AGE_S, CachedStore, cached
from storage.cache.origin import Part
from storage.errors import CorruptError, MissingError, StorageError
from storage.grid import Box, tile
from storage.volume import read

WHOLE = Box((0, 0, 0), (8, 200, 256), mip=0)


def _shard(array, key: str = "c/0/0/0") -> str:
    return store.join(array.store.uri, key)


def _damage(array) -> bytes:
    """Flip a bit of a shard's first chunk at its source; return what it was."""
    content = store.read_bytes(_shard(array))
    store.replace_bytes(_shard(array), content[:100] + bytes([content[100] ^ 4]) + content[101:])
    return content


@pytest.mark.parametrize("max_age_s", [None, FOREIGN_MAX_AGE_S])
def test_voxels_are_the_same_with_and_without_a_cache(array, voxels, cache, max_age_s):
    through = cached(array, cache, max_age_s=max_age_s)
    rng = np.random.default_rng(0)
    for _ in range(20):
        start = rng.integers(0, (8, 200, 256))
        stop = start + rng.integers(1, (9, 120, 120))
        box = Box(tuple(map(int, start)), tuple(map(int, stop)), mip=0)
        np.testing.assert_array_equal(read(through, box), read(array, box))
    for box in tile(voxels.shape, (4, 128, 128), mip=0):
        np.testing.assert_array_equal(read(through, box), voxels[box.slices])


def test_the_second_read_asks_nobody(array, voxels, cache):
    through = cached(array, cache)
    np.testing.assert_array_equal(read(through, WHOLE), voxels)
    asked = cache.counts.requests
    assert asked > 0
    for box in (WHOLE, Box((0, 5, 5), (3, 90, 90), mip=0)):
        np.testing.assert_array_equal(read(through, box), voxels[box.slices])
    assert cache.counts.requests == asked


def test_what_a_checked_store_refuses_is_refused_through_the_cache_too(array, cache):
    through = cached(array, cache)
    store.delete(_shard(array, "c/1/1/1"))
    with pytest.raises(MissingError, match="c/1/1/1"):
        read(through, WHOLE)
    with pytest.raises(StorageError, match="reading only"):
        volume.write(through, WHOLE, np.zeros(WHOLE.shape, np.uint8))
    with pytest.raises(StorageError, match="reading only"):
        through.store.with_read_only(False)


def test_damage_at_the_source_is_an_error_and_not_for_ever(array, voxels, cache):
    """The server's copy is mended: what the cache kept of the damaged one must not stay."""
    through = cached(array, cache)
    good = _damage(array)
    box = Box((0, 0, 0), array.shards, mip=0)  # the flipped bit may be of any chunk
    with pytest.raises(CorruptError):
        read(through, box)
    store.replace_bytes(_shard(array), good)
    np.testing.assert_array_equal(read(through, box), voxels[box.slices])


def test_damage_that_the_cache_kept_does_not_outlive_the_repair(array, voxels, cache):
    """The server flipped a bit and mended it under the same ETag: only decoding can tell."""
    through = cached(array, cache)
    box = Box((0, 0, 0), array.shards, mip=0)  # the flipped bit may be of any chunk
    source = through.store.origin("c/0/0/0")
    bad = np.frombuffer(_damage(array), np.uint8).copy()
    store.replace_bytes(_shard(array), bad.tobytes())
    version = source.version()
    bad[100] ^= 4
    cache._learn(source, version)
    cache.fetcher.keep(source, Part(bad, 0, version))
    asked = cache.counts.requests
    np.testing.assert_array_equal(read(through, box), voxels[box.slices])
    assert cache.counts.requests > asked
    again = cache.counts.requests
    np.testing.assert_array_equal(read(through, box), voxels[box.slices])
    assert cache.counts.requests == again, "what was fetched anew is kept"


def test_a_foreign_array_follows_its_overwriter(root, cache):
    if root.startswith("s3:"):
        pytest.skip("the overwriting program here is plain zarr on a local folder")
    path = root.removeprefix("file://")
    foreign = zarr.create_array(path, shape=(4, 64, 64), chunks=(4, 32, 32), dtype="uint8")
    foreign[:] = 1
    through = cached(volume.open_foreign(root), cache, max_age_s=0)
    box = Box((0, 0, 0), (4, 64, 64), mip=0)
    for value in (1, 2, 3):
        foreign[:] = value
        assert set(np.unique(read(through, box))) == {value}


def test_an_array_travels_with_its_cache(array, voxels, cache):
    through = pickle.loads(pickle.dumps(cached(array, cache)))
    assert isinstance(through.store, CachedStore)
    assert through.store.cache is cache
    assert through.store == cached(array, cache).store
    np.testing.assert_array_equal(read(through, WHOLE), voxels)


def test_only_arrays_of_storage_are_cached(cache):
    with pytest.raises(StorageError, match="open_array"):
        cached(zarr.create_array({}, shape=(4,), dtype="uint8"), cache)
