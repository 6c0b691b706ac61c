from __future__ import annotations

import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage import store
from storage.cache import open_cache
from storage.cache.entry import PAGE_BYTES
from storage.cache.origin import ChangedError, Part, Version, origin
from storage.errors import CorruptError, MissingError, UnavailableError

BLOCK = PAGE_BYTES
SIZE = 5 * BLOCK + 1234


def _bytes(seed: int, size: int = SIZE):
    return np.random.default_rng(seed).integers(0, 256, size, np.uint8)


class Counted:
    """An origin in memory that counts and can be told to fail."""

    def __init__(self, data, tag: str = "v1", name: str = "memory") -> None:
        self.data, self.tag, self.name, self.uri = data, tag, name, name
        self.reads: list[tuple[int, int | None]] = []
        self.heads = 0
        self.failures = 0
        self.gate = threading.Event()
        self.gate.set()

    def version(self) -> Version:
        self.heads += 1
        return Version(self.tag, self.data.size)

    def read(self, start, stop, tag=None, limit=None) -> Part:
        self.reads.append((start, stop))
        self.gate.wait(10)
        if self.failures:
            self.failures -= 1
            raise UnavailableError("the server is down")
        if tag not in (None, self.tag):
            raise ChangedError("changed")
        first, last, _ = slice(start, stop).indices(self.data.size)
        return Part(self.data[first:last], first, Version(self.tag, self.data.size))


@pytest.fixture
def cache(tmp_path):
    return open_cache(str(tmp_path / "cache"), 64 * (BLOCK + 4096), BLOCK)


def _fresh(cache):
    """Return the cache as another process sees it: the files, and nothing in memory."""
    return type(cache)(cache.folder.path, cache.max_bytes, cache.block_bytes)


def _settled(cache):
    """Wait until everything fetched has been stored."""
    deadline = time.monotonic() + 10
    while cache.fetcher.is_busy and time.monotonic() < deadline:
        time.sleep(0.005)
    assert not cache.fetcher.is_busy


SLICES = st.one_of(
    st.tuples(st.integers(0, SIZE - 1), st.integers(0, SIZE)).map(
        lambda s: (s[0], min(s[0] + s[1], SIZE))
    ),
    st.tuples(st.integers(-SIZE, -1), st.none()),
    st.tuples(st.integers(0, SIZE - 1), st.none()),
)


@given(st.lists(SLICES, min_size=1, max_size=5), st.sampled_from([None, 60.0]))
@settings(max_examples=60, deadline=None)
def test_any_sequence_of_reads_gives_the_objects_bytes(tmp_path_factory, slices, max_age_s):
    folder = tmp_path_factory.mktemp("cache")
    cache = open_cache(str(folder), 64 * (BLOCK + 4096), BLOCK)
    source = Counted(_bytes(1))
    for start, stop in slices:
        got = cache.get(source, start, stop, max_age_s=max_age_s)
        np.testing.assert_array_equal(got, source.data[start:stop])
        got = _fresh(cache).get(source, start, stop, max_age_s=max_age_s)
        np.testing.assert_array_equal(got, source.data[start:stop])


def test_what_is_cached_is_read_without_any_request(cache):
    source = Counted(_bytes(1))
    cache.get(source, max_age_s=None)
    assert source.reads == [(0, None)]
    for again in (cache, _fresh(cache)):
        np.testing.assert_array_equal(again.get(source, max_age_s=None), source.data)
        np.testing.assert_array_equal(again.get(source, -100, max_age_s=None), source.data[-100:])
    assert (len(source.reads), source.heads) == (1, 0)


def test_the_first_read_of_a_part_needs_one_request(cache):
    source = Counted(_bytes(1))
    cache.get(source, 100, 200, max_age_s=None)
    assert source.reads == [(0, BLOCK)]
    source = Counted(_bytes(2), name="second")
    cache.get(source, -20, max_age_s=None)
    assert source.reads == [(-BLOCK, None)]
    cache.get(source, -1200, max_age_s=None)
    assert len(source.reads) == 1, "the last block was whole in the first answer"


def test_neighbouring_misses_are_one_request(cache):
    source = Counted(_bytes(1))
    cache.get(source, 2 * BLOCK, 2 * BLOCK + 1, max_age_s=None)
    cache.get(source, 0, SIZE, max_age_s=None)
    assert source.reads == [
        (2 * BLOCK, 3 * BLOCK), (0, 2 * BLOCK), (3 * BLOCK, SIZE),
    ]  # fmt: skip


def test_an_object_that_others_may_overwrite_is_asked_for_its_version(cache):
    source = Counted(_bytes(1))
    cache.get(source, max_age_s=60)
    cache.get(source, max_age_s=60)
    assert (len(source.reads), source.heads) == (1, 0)
    np.testing.assert_array_equal(_fresh(cache).get(source, max_age_s=60), source.data)
    assert (len(source.reads), source.heads) == (1, 1)
    source.data, source.tag = _bytes(2), "v2"
    np.testing.assert_array_equal(_fresh(cache).get(source, max_age_s=60), source.data)
    assert (len(source.reads), source.heads) == (2, 2)
    np.testing.assert_array_equal(cache.get(source, max_age_s=0), source.data)
    assert source.heads == 3


def test_an_object_that_changes_between_two_blocks_is_never_mixed(cache):
    source = Counted(_bytes(1))
    cache.get(source, 0, BLOCK, max_age_s=60)
    source.data, source.tag = _bytes(2), "v2"
    np.testing.assert_array_equal(cache.get(source, max_age_s=60), source.data)
    version = Version("v1", SIZE)
    with pytest.raises(ChangedError):
        cache.get_version(source, version)


def test_one_that_changes_all_the_time_is_read_in_one_request(cache):
    class Restless(Counted):
        def read(self, start, stop, tag=None, limit=None):
            part = super().read(start, stop, None)
            if tag is not None:
                raise ChangedError("changed again")
            return part

    source = Restless(_bytes(1))
    cache.get(source, 0, 10, max_age_s=None)
    np.testing.assert_array_equal(cache.get(source, max_age_s=None), source.data)
    assert source.reads[-1] == (0, None)


def test_a_flipped_bit_on_the_local_disk_is_fetched_again(cache):
    source = Counted(_bytes(1))
    cache.get(source, max_age_s=None)
    rng = np.random.default_rng(0)
    for trial in range(50):
        files = sorted(cache.folder.path.glob("*/*"))
        files = [f for f in files if not f.name.startswith(".")]
        file = files[int(rng.integers(len(files)))]
        content = bytearray(file.read_bytes())
        content[int(rng.integers(len(content)))] ^= 1 << int(rng.integers(8))
        file.write_bytes(content)
        reader = cache if trial % 2 else _fresh(cache)
        np.testing.assert_array_equal(reader.get(source, max_age_s=None), source.data)
        _settled(reader)


def test_threads_that_want_the_same_wait_for_one_request(cache):
    source = Counted(_bytes(1))
    cache.get(source, -1, max_age_s=None)
    source.gate.clear()
    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(cache.get, source, 0, BLOCK, max_age_s=None) for _ in range(8)]
        time.sleep(0.1)
        source.gate.set()
        for answer in waiting:
            np.testing.assert_array_equal(answer.result(), source.data[:BLOCK])
    assert len(source.reads) == 2


def test_an_error_goes_to_who_reads_and_the_next_read_tries_again(cache):
    source = Counted(_bytes(1))
    source.failures = 1
    with pytest.raises(UnavailableError):
        cache.get(source, max_age_s=None)
    cache.get(source, 0, 10, max_age_s=None)
    source.failures = 1
    with pytest.raises(UnavailableError):
        cache.get(source, max_age_s=None)
    np.testing.assert_array_equal(cache.get(source, max_age_s=None), source.data)


def test_a_short_answer_is_not_kept(cache):
    class Short(Counted):
        def read(self, start, stop, tag=None, limit=None):
            part = super().read(start, stop, tag)
            return Part(part.data[:-1], part.start, part.version) if tag else part

    source = Short(_bytes(1))
    cache.get(source, 0, 10, max_age_s=None)
    with pytest.raises(CorruptError, match="asked for bytes"):
        cache.get(source, max_age_s=None)


def test_a_full_disk_only_makes_it_slow(cache, monkeypatch):
    monkeypatch.setattr(cache.folder, "_write", _no_space)
    source = Counted(_bytes(1))
    for _ in range(2):
        np.testing.assert_array_equal(cache.get(source, max_age_s=None), source.data)
    _settled(cache)
    assert cache.counts.declined >= 6


def _no_space(*args: object) -> None:
    raise OSError(28, "No space left on device")


def test_what_is_in_doubt_is_forgotten(cache):
    source = Counted(_bytes(1))
    cache.get(source, max_age_s=None)
    source.data = _bytes(2)  # mended: other bytes under the same tag
    np.testing.assert_array_equal(cache.get(source, max_age_s=None), _bytes(1))
    cache.forget(source)
    np.testing.assert_array_equal(cache.get(source, max_age_s=None), source.data)


def test_a_cache_travels_as_its_settings(cache):
    assert pickle.loads(pickle.dumps(cache)) is cache


def test_a_forked_process_can_go_on(tmp_path):
    import os

    cache = open_cache(str(tmp_path / "cache"), 64 * (BLOCK + 4096), BLOCK)
    source = Counted(_bytes(1))
    cache.get(source, 0, 10, max_age_s=None)
    cache.get(source, max_age_s=None)
    _settled(cache)
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads are running: the point
        child = os.fork()
    if child == 0:
        cache.folder.clear()
        same = np.array_equal(cache.get(source, max_age_s=None), source.data)
        os._exit(0 if same else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_objects_of_both_kinds_of_storage(root, cache):
    uri = store.join(root, "c/0")
    data = _bytes(3)
    store.create_bytes(uri, data.tobytes())
    source = origin(uri)
    for start, stop in ((0, None), (-20, None), (10, 20), (BLOCK, 2 * BLOCK + 5), (SIZE - 5, None)):
        np.testing.assert_array_equal(
            cache.get(source, start, stop, max_age_s=None), data[start:stop]
        )
        np.testing.assert_array_equal(source.read(start, stop).data, data[start:stop])
    assert source.version() == source.read(0, 1).version
    with pytest.raises(ChangedError):
        source.read(0, 10, '"another"')
    with pytest.raises(MissingError):
        cache.get(origin(store.join(root, "c/1")), max_age_s=None)
    with pytest.raises(MissingError):
        cache.get(origin(store.join(root, "c/1")), 0, 10, max_age_s=60)


def test_an_overwritten_object_is_read_anew(root, cache):
    uri = store.join(root, "c/0")
    for seed in range(3):
        store.replace_bytes(uri, _bytes(seed).tobytes())
        np.testing.assert_array_equal(cache.get(origin(uri), max_age_s=0), _bytes(seed))
        np.testing.assert_array_equal(
            cache.get(origin(uri), 5, 50, max_age_s=0), _bytes(seed)[5:50]
        )
