from __future__ import annotations

import itertools
import threading
import time

import numpy as np
import pytest

from storage import store, volume
from storage.cache import arrays, open_cache
from storage.cache.arrays import cached
from storage.cache.needs import Needs
from storage.cache.prefetch import MAX_BOXES, Prefetch, read_ahead
from storage.errors import MissingError, StorageError, UnavailableError
from storage.grid import Box
from storage.spans import span
from storage.volume import read


def _boxes(n: int, seed: int = 0) -> list[Box]:
    rng = np.random.default_rng(seed)
    starts = [tuple(map(int, rng.integers(0, (5, 140, 200)))) for _ in range(n)]
    return [Box(s, (s[0] + 3, s[1] + 60, s[2] + 56), mip=0) for s in starts]


def _until(condition, seconds: float = 20) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    return bool(condition())


def test_boxes_arrive_in_their_order(array, voxels, cache):
    boxes = _boxes(30)
    for box, found in zip(boxes, read_ahead(cached(array, cache), boxes), strict=True):
        np.testing.assert_array_equal(found, voxels[box.slices])


def test_what_was_fetched_ahead_is_read_without_a_request(array, voxels, cache):
    through = cached(array, cache)
    boxes = _boxes(6)
    with Prefetch(through, boxes) as ahead:
        assert _until(lambda: ahead._planned == len(boxes) and ahead.held_blocks > 0)
        assert _until(lambda: not cache.fetcher.is_busy and ahead._pool._work_queue.empty())
        time.sleep(0.1)
        asked = cache.counts.requests
        for place, box in enumerate(boxes):
            np.testing.assert_array_equal(read(through, box), voxels[box.slices])
            ahead.done(place)
        assert cache.counts.requests == asked
        assert ahead.held_blocks == 0


@pytest.mark.parametrize("sharded", [True, False])
def test_it_needs_what_zarr_reads(root, sharded):
    """The bytes named for a box are those that the store is asked for, no fewer."""
    made = volume.create_array(
        root, "a", shape=(6, 100, 90), chunk=(2, 16, 16), shard=(4, 64, 64) if sharded else None,
        dtype=np.uint8, fill_value=0, dimension_names=("z", "y", "x"),
    )  # fmt: skip
    whole = Box((0, 0, 0), (6, 100, 90), mip=0)
    volume.write(made, whole, np.random.default_rng(0).integers(0, 255, (6, 100, 90), np.uint8))
    needs = Needs.of(made)
    for box in (whole, Box((1, 20, 30), (2, 50, 31), mip=0), Box((5, 90, 80), (9, 120, 99), mip=0)):
        asked: set[tuple[str, int]] = set()
        original = made.store._fetch

        async def spy(key, prototype, byte_range, asked=asked, original=original):
            found = await original(key, prototype, byte_range)
            part = span(byte_range, 2**30, key)
            if key.startswith("c/"):
                size = store.read_bytes(store.join(made.store.uri, key))
                first, last, _ = part.indices(len(size))
                asked.update((key, at) for at in range(first, last))
            return found

        made.store._fetch = spy
        read(made, box)
        made.store._fetch = original
        named = set()
        for key, position in needs.objects(box):
            content = store.read_bytes(store.join(made.store.uri, key))
            index = np.frombuffer(content[-needs.index_bytes :], np.uint8)
            parts = needs.parts(box, position, needs.entries(index))
            for start, stop in parts:
                first, last, _ = slice(start, stop).indices(len(content))
                named.update((key, at) for at in range(first, last))
        assert named <= asked  # zarr also reads the gaps that it bridges
        chunks_and_gaps = len(asked) - len(named)
        assert chunks_and_gaps == 0 or sharded


def test_the_window_is_not_exceeded(array, cache):
    through = cached(array, cache)
    boxes = _boxes(40)
    most = 0
    with Prefetch(through, boxes, window_bytes=6 * 2**16) as ahead:
        for place, box in enumerate(boxes):
            read(through, box)
            most = max(most, ahead.held_blocks)
            ahead.done(place)
    largest = 3 * 2 * 4  # a box meets 4 shards, of which it may need every block
    assert 0 < most <= max(6, largest)


@pytest.mark.parametrize("window_bytes", [4 * 2**16, 2**40])
def test_an_endless_list_is_read_only_as_far_as_the_window(array, cache, window_bytes):
    drawn = itertools.count()

    def endless():
        for box in itertools.cycle(_boxes(10)):
            next(drawn)
            yield box

    with Prefetch(cached(array, cache), endless(), window_bytes=window_bytes) as ahead:
        assert _until(lambda: ahead.held_blocks > 0)
        time.sleep(0.5)
    assert next(drawn) <= MAX_BOXES + 1


def test_cancelling_gives_back_what_was_held(array, cache):
    with Prefetch(cached(array, cache), _boxes(30)) as ahead:
        _until(lambda: ahead.held_blocks > 0)
    assert ahead.held_blocks == 0
    assert not [t for t in threading.enumerate() if t.name.startswith("prefetch")]
    now = time.time() + 5
    files = [f for f in cache.folder.path.glob("*/*") if not f.name.startswith(".")]
    assert all(f.stat().st_mtime < now for f in files), "no lease is left"


def test_others_cannot_evict_what_is_still_to_be_used(array, voxels, tmp_path):
    slots = 24
    cache = open_cache(str(tmp_path / "small"), slots * (2**16 + 4096), 2**16)
    through = cached(array, cache)
    boxes = _boxes(2)
    with Prefetch(through, boxes) as ahead:
        assert _until(lambda: ahead._planned == 2)
        assert _until(lambda: not cache.fetcher.is_busy and ahead._pool._work_queue.empty())
        time.sleep(0.1)
        rng = np.random.default_rng(0)
        for _ in range(3 * slots):  # another process fills the cache
            cache.folder.put(rng.bytes(20), np.zeros(2**16, np.uint8))
        asked = cache.counts.requests
        for box in boxes:
            np.testing.assert_array_equal(read(through, box), voxels[box.slices])
        assert cache.counts.requests == asked


def test_errors_come_with_the_read_and_not_before(array, voxels, cache, monkeypatch):
    broken = threading.Event()
    real = arrays.origin

    def fragile(uri: str, server: str):
        source = real(uri, server)
        if broken.is_set() and uri.endswith("c/1/1/1"):
            raise UnavailableError(f"{uri}: the server is down")
        return source

    monkeypatch.setattr(arrays, "origin", fragile)
    through = cached(array, cache)
    boxes = [Box((0, 0, 0), (2, 30, 30), 0), Box((5, 150, 200), (6, 160, 210), 0)]
    broken.set()
    read_boxes = read_ahead(through, boxes)
    np.testing.assert_array_equal(next(read_boxes), voxels[boxes[0].slices])
    with pytest.raises(UnavailableError, match="server is down"):
        next(read_boxes)
    broken.clear()
    np.testing.assert_array_equal(read(through, boxes[1]), voxels[boxes[1].slices])


def test_a_missing_shard_is_an_error_of_its_box_alone(root, cache):
    made = volume.create_array(
        root, "a", shape=(4, 64, 128), chunk=(4, 16, 16), shard=(4, 64, 64), dtype=np.uint8,
        fill_value=0, dimension_names=("z", "y", "x"),
    )  # fmt: skip
    volume.write(made, Box((0, 0, 0), (4, 64, 64), 0), np.ones((4, 64, 64), np.uint8))
    boxes = [Box((0, 0, 0), (4, 9, 9), 0), Box((0, 0, 70), (4, 9, 99), 0)]
    found = read_ahead(cached(made, cache), boxes)
    assert next(found).all()
    with pytest.raises(MissingError):
        next(found)


def test_an_array_without_a_cache_is_refused(array):
    with pytest.raises(StorageError, match="use cached"):
        Prefetch(array, [])
