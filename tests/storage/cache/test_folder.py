from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from storage.cache import entry, folder
from storage.cache.folder import CacheError, CacheFolder

BLOCK = 2**16


def _name(number: int) -> bytes:
    return hashlib.blake2b(str(number).encode(), digest_size=entry.NAME_BYTES).digest()


def _data(number: int, size: int = BLOCK) -> entry.Bytes:
    return np.random.default_rng(number).integers(0, 256, size, np.uint8)


def _open(path: Path, slots: int = 64) -> CacheFolder:
    return CacheFolder(path, max_bytes=slots * (BLOCK + entry.HEADER_BYTES), block_bytes=BLOCK)


def _has(cache: CacheFolder, number: int, size: int = BLOCK) -> bool:
    out = np.empty(size, np.uint8)
    found = cache.read(_name(number), 0, out)
    if found:
        np.testing.assert_array_equal(out, _data(number, size))
    return found


@given(start=st.integers(0, 200_000), size=st.integers(0, 200_000))
@settings(max_examples=60, deadline=None)
def test_any_part_of_an_entry_is_what_was_stored(tmp_path_factory, start, size):
    path = tmp_path_factory.getbasetemp() / "parts"
    cache = CacheFolder(path, max_bytes=2**22, block_bytes=2**18)
    data = _data(0, 200_000)
    assert cache.put(_name(0), data)
    out = np.empty(size, np.uint8)
    assert cache.read(_name(0), start, out) == (start + size <= data.size)
    if start + size <= data.size:
        np.testing.assert_array_equal(out, data[start : start + size])


def test_every_flipped_bit_and_every_truncation_is_noticed(tmp_path):
    cache = _open(tmp_path)
    rng = np.random.default_rng(0)
    size = entry.HEADER_BYTES + 1000
    for at in [*rng.integers(0, size, 150), 0, 40, 4095, size - 1]:
        assert cache.put(_name(1), _data(1, 1000))
        (file,) = tmp_path.glob(f"*/{_name(1).hex()}")
        content = bytearray(file.read_bytes())
        content[at] ^= 1 << int(rng.integers(8))
        file.write_bytes(content)
        assert not _has(cache, 1, 1000)
        assert not file.exists(), "a damaged entry must be dropped"
        assert cache.put(_name(1), _data(1, 1000))
        os.truncate(file, int(at))
        assert not _has(cache, 1, 1000)


def test_an_entry_under_another_name_is_noticed(tmp_path):
    cache = _open(tmp_path)
    cache.put(_name(1), _data(1))
    (file,) = tmp_path.glob(f"*/{_name(1).hex()}")
    target = Path(cache._file(_name(2)))
    target.parent.mkdir(exist_ok=True)
    file.rename(target)
    assert not cache.read(_name(2), 0, np.empty(10, np.uint8))


def test_the_bound_holds_and_the_oldest_go_first(tmp_path):
    cache = _open(tmp_path, slots=16)
    assert (cache.buckets, cache.ways) == (1, 15)
    for number in range(40):
        assert cache.put(_name(number), _data(number))
        place = cache._file(_name(number))
        os.utime(place, (number, number))
        assert cache.used_bytes() <= 16 * cache.slot_bytes
    assert [number for number in range(40) if _has(cache, number)] == list(range(25, 40))


def test_what_is_read_is_young_again(tmp_path):
    cache = _open(tmp_path, slots=4)
    for number in range(3):
        cache.put(_name(number), _data(number))
        os.utime(cache._file(_name(number)), (number, number))
    assert _has(cache, 0)
    cache.put(_name(3), _data(3))
    assert [_has(cache, number) for number in range(4)] == [True, False, True, True]


def test_a_leased_entry_is_not_evicted_until_it_is_given_back(tmp_path):
    cache = _open(tmp_path, slots=4)
    for number in range(3):
        assert cache.put(_name(number), _data(number), lease_s=60)
    assert not cache.put(_name(3), _data(3)), "all are leased: the cache declines"
    assert cache.lease(_name(1), 0)
    assert cache.put(_name(3), _data(3))
    assert [_has(cache, number) for number in range(4)] == [True, False, True, True]


def test_a_lease_of_a_holder_that_died_runs_out(tmp_path):
    cache = _open(tmp_path, slots=4)
    for number in range(3):
        cache.put(_name(number), _data(number), lease_s=0.1)
    time.sleep(0.15)
    assert cache.put(_name(3), _data(3))


def test_a_clock_that_was_set_back_leaves_no_eternal_lease(tmp_path):
    cache = _open(tmp_path, slots=4)
    far = time.time() + 10 * folder.MAX_LEASE_S
    for number in range(3):
        cache.put(_name(number), _data(number))
        os.utime(cache._file(_name(number)), (far, far))
    assert cache.put(_name(3), _data(3))


def test_the_bound_of_who_writes_counts(tmp_path):
    large, small = _open(tmp_path, slots=64), _open(tmp_path, slots=8)
    assert (large.buckets, large.ways, small.ways) == (1, 63, 7)
    for number in range(60):
        large.put(_name(number), _data(number))
    small.put(_name(60), _data(60))
    assert small.used_bytes() <= 8 * small.slot_bytes


def test_a_full_disk_is_no_error(tmp_path, monkeypatch):
    cache = _open(tmp_path)
    cache.put(_name(0), _data(0))

    def full(*args: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "writev", full)
    assert not cache.put(_name(1), _data(1))
    monkeypatch.undo()
    assert list(tmp_path.glob("*/.new")) == []
    assert _has(cache, 0)
    monkeypatch.setattr(os, "writev", lambda *_: 10)  # the disk took ten bytes
    assert not cache.put(_name(1), _data(1))
    monkeypatch.undo()
    assert not _has(cache, 1)


def test_a_writer_that_was_stopped_holds_nobody_up(tmp_path):
    import fcntl

    cache = _open(tmp_path)
    cache.put(_name(0), _data(0))
    with (tmp_path / "0000" / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        started = time.monotonic()
        assert not cache.put(_name(1), _data(1))
        assert time.monotonic() - started < 5
        assert _has(cache, 0), "readers take no lock"


def test_a_deleted_cache_is_made_again(tmp_path):
    import shutil

    cache = _open(tmp_path / "cache")
    cache.put(_name(0), _data(0))
    shutil.rmtree(tmp_path / "cache")
    assert not _has(cache, 0)
    assert not cache.put(_name(0), _data(0))
    assert _open(tmp_path / "cache").put(_name(0), _data(0))


def test_clear_leaves_nothing_but_the_form(tmp_path):
    cache = _open(tmp_path)
    for number in range(5):
        cache.put(_name(number), _data(number))
    cache.clear()
    assert not any(_has(cache, number) for number in range(5))
    assert cache.used_bytes() < 1000


def test_settings_that_cannot_hold_are_refused(tmp_path):
    with pytest.raises(CacheError, match="PETALIGN_CACHE_BYTES"):
        _open(tmp_path / "a", slots=3)
    with pytest.raises(CacheError, match="block_bytes"):
        CacheFolder(tmp_path / "a", max_bytes=2**30, block_bytes=100)
    _open(tmp_path / "b", slots=1000)
    with pytest.raises(CacheError, match="larger cache"):
        _open(tmp_path / "b", slots=8)
    with pytest.raises(CacheError, match="another form"):
        CacheFolder(tmp_path / "b", max_bytes=2**30, block_bytes=2 * BLOCK)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("keep me")
    with pytest.raises(CacheError, match="something else"):
        _open(tmp_path / "mine")


def _writer(path: Path, seed: int) -> subprocess.Popen[bytes]:
    program = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parents[3]), str(Path(__file__).parent)]!r}
import numpy as np
from test_folder import _data, _name, _open
from pathlib import Path
cache = _open(Path({str(path)!r}), slots=40)
rng = np.random.default_rng({seed})
print("ready", flush=True)
while True:
    number = int(rng.integers(200))
    cache.put(_name(number), _data(number))
"""
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)


def test_writers_killed_at_any_moment_leave_whole_entries_within_the_bound(tmp_path):
    """Two processes write without end and are killed -9; a reader and a bound-keeper watch."""
    cache = _open(tmp_path, slots=40)
    bound = 40 * cache.slot_bytes + 4096
    rng = np.random.default_rng(0)
    seen = 0
    for round_ in range(3):
        writers = [_writer(tmp_path, 10 * round_ + k) for k in range(2)]
        try:
            for writer in writers:
                assert writer.stdout is not None
                assert writer.stdout.readline() == b"ready\n"
            deadline = time.monotonic() + float(rng.uniform(0.2, 0.6))
            while time.monotonic() < deadline:
                seen += sum(_has(cache, number) for number in range(0, 200, 7))
                assert cache.used_bytes() <= bound
        finally:
            for writer in writers:
                os.kill(writer.pid, signal.SIGKILL)
                writer.wait()
                assert writer.stdout is not None
                writer.stdout.close()
        assert cache.used_bytes() <= bound
        whole = [number for number in range(200) if _has(cache, number)]
        files = [f for f in tmp_path.glob("*/*") if not f.name.startswith(".")]
        assert len(whole) == len(files) > 0, "every file that is visible is a whole entry"
        assert cache.put(_name(999), _data(999)), "a killed writer's lock is free"
    assert seen > 0


def test_threads_and_the_bound(tmp_path):
    cache = _open(tmp_path, slots=20)
    threads = [
        threading.Thread(
            target=lambda k=k: [cache.put(_name(n), _data(n)) for n in range(k, 120, 4)]
        )
        for k in range(4)
    ]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert cache.used_bytes() <= 20 * cache.slot_bytes + 4096
    for thread in threads:
        thread.join()
    assert sum(_has(cache, number) for number in range(120)) == cache.ways
