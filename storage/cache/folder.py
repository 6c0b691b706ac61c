"""A folder of entries whose size is bounded by its form, whoever writes and whoever is killed.

It is built like a processor's set-associative cache. An entry's name, a digest, chooses one of a
fixed number of buckets (folders); a bucket holds at most so many entries, its ways. Who adds an
entry holds the bucket's lock, removes the oldest files until there is room for one more, writes
the new file under a provisional name and renames it. Therefore

- there is no index and no counter that could be torn or disagree with the files;
- at any moment, after any number of kills, a bucket holds at most its ways and one provisional
  file, which the bucket's next writer overwrites: ``buckets * (ways + 1)`` slots bound the size;
- a reader opens one file by its name, takes no lock, and never sees an unfinished one.

"Oldest" goes by the time of modification, which a reader renews. A time in the future is a lease:
until then nobody evicts the entry. Leases run out by themselves if their holder is killed.
Nothing is synced: after a power cut a file may hold anything, which its checksums show.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import suppress
from pathlib import Path

from storage import durable
from storage.cache import entry
from storage.cache.entry import BadEntryError, Bytes
from storage.errors import StorageError

RENEW_S = 10.0
"""A hit renews the time of an entry that is older than this; renewing each time costs a write."""

MAX_LEASE_S = 24 * 3600.0
"""Times further ahead are a clock that was set back, not a lease."""

_LOCK_WAIT_S = 0.25
_FORM = "form.json"
_LOCK = ".lock"
_PROVISIONAL = ".new"


class CacheError(StorageError, ValueError):
    """A folder cannot be used as a cache with these settings; never retried."""


class CacheFolder:
    """At most `max_bytes` of entries of up to `block_bytes`, below the folder `path`.

    The first process to open an empty folder fixes the number of buckets and the block size; the
    ways follow from the `max_bytes` of whoever writes, so a new bound needs no new cache.

    Raises
    ------
    CacheError
        If the bound is too small for its blocks, or the folder was made with other blocks, is
        something else, or cannot be written.
    """

    def __init__(self, path: Path, *, max_bytes: int, block_bytes: int) -> None:
        if not entry.PAGE_BYTES <= block_bytes <= entry.MAX_BLOCK_BYTES:
            raise CacheError(
                f"block_bytes={block_bytes}; expected {entry.PAGE_BYTES} to {entry.MAX_BLOCK_BYTES}"
            )
        self.path = path
        self._root = str(path)
        self.slot_bytes = block_bytes + entry.HEADER_BYTES
        slots = max_bytes // self.slot_bytes
        if slots < 4:
            raise CacheError(
                f"a cache of {max_bytes} bytes in {path} has no room for 4 blocks of {block_bytes} "
                "bytes; raise PETALIGN_CACHE_BYTES (or max_bytes), or lower block_bytes"
            )
        self.buckets = self._agree_on_form(block_bytes, _buckets_for(slots))
        self.ways = slots // self.buckets - 1
        if self.ways < 1:
            raise CacheError(
                f"{path} was made as a larger cache, of {self.buckets} buckets, and cannot keep "
                f"below {max_bytes} bytes; give another folder or delete this one"
            )

    def read(self, name: bytes, start: int, out: Bytes, *, check: bool = True) -> bool:
        """Fill `out` from an entry and return True; False if it is absent.

        A damaged entry is removed, and absent from then on.
        """
        try:
            handle = os.open(self._file(name), os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            entry.read(handle, name, start, out, check=check)
            age_s = time.time() - os.fstat(handle).st_mtime
            if age_s > RENEW_S or age_s < -MAX_LEASE_S:
                os.utime(handle)
            return True
        except (BadEntryError, OSError):  # EIO: the disk itself says that it lost the data
            self.drop(name)
            return False
        finally:
            os.close(handle)

    def put(self, name: bytes, data: Bytes, *, lease_s: float = 0.0, again: bool = False) -> bool:
        """Store an entry and return whether it is there.

        It is not if the disk is full, all entries of its bucket are leased, or another writer of
        the bucket hangs: a cache may decline, so nothing is raised.

        Parameters
        ----------
        again : bool
            Replace the entry of this name, which is in doubt.
        """
        bucket = Path(self._file(name)).parent
        try:
            lock = _open_lock(bucket)
        except OSError:
            return False
        try:
            if not _locked(lock):
                return False
            if not again and self._is_kept(name, lease_s):
                return True
            if not self._make_room(bucket, name):
                return False
            self._write(bucket, name, data, lease_s)
            return True
        except OSError:
            with suppress(OSError):  # give a full disk its bytes back
                (bucket / _PROVISIONAL).unlink()
            return False
        finally:
            os.close(lock)

    def lease(self, name: bytes, lease_s: float) -> bool:
        """Keep an entry from eviction for some time (0: no longer); False if it is absent."""
        until = time.time() + min(lease_s, MAX_LEASE_S)
        try:
            os.utime(self._file(name), (until, until))
        except OSError:
            return False
        return True

    def drop(self, name: bytes) -> None:
        """Remove an entry, if it is there."""
        with suppress(OSError):
            os.unlink(self._file(name))  # noqa: PTH108

    def used_bytes(self) -> int:
        """Return what the entries take now, provisional ones included."""
        total = 0
        for folder, _, names in self.path.walk():
            for name in names:
                with suppress(OSError):
                    total += (folder / name).stat().st_size
        return total

    def clear(self) -> None:
        """Remove every entry."""
        for bucket in self.path.iterdir():
            if bucket.is_dir():
                for name in os.listdir(bucket):  # noqa: PTH208
                    if name != _LOCK:  # the lock itself is never deleted: a writer may hold it
                        (bucket / name).unlink(missing_ok=True)

    def _file(self, name: bytes) -> str:
        bucket = int.from_bytes(name[:4], "little") % self.buckets
        return f"{self._root}/{bucket:04x}/{name.hex()}"  # a str: Path costs as much as the read

    def _is_kept(self, name: bytes, lease_s: float) -> bool:
        return self.lease(name, lease_s) if lease_s else os.path.exists(self._file(name))  # noqa: PTH110

    def _make_room(self, bucket: Path, name: bytes) -> bool:
        """Remove the oldest entries until one more fits; False if those left are all leased."""
        now = time.time()
        with os.scandir(bucket) as files:
            ages = [
                (other.stat().st_mtime, other.name)
                for other in files
                if not other.name.startswith(".") and other.name != name.hex()
            ]
        excess = len(ages) - self.ways + 1
        if excess <= 0:
            return True
        free = sorted(age for age in ages if not now < age[0] < now + MAX_LEASE_S)
        for _, victim in free[:excess]:
            (bucket / victim).unlink(missing_ok=True)
        return len(free) >= excess

    def _write(self, bucket: Path, name: bytes, data: Bytes, lease_s: float) -> None:
        provisional = bucket / _PROVISIONAL
        handle = os.open(provisional, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            size = entry.HEADER_BYTES + data.size
            if os.writev(handle, [entry.header(name, data).data, data.data]) != size:
                raise OSError("the disk is full")
            if lease_s:
                until = time.time() + min(lease_s, MAX_LEASE_S)
                os.utime(handle, (until, until))
        finally:
            os.close(handle)
        provisional.rename(bucket / name.hex())

    def _agree_on_form(self, block_bytes: int, buckets: int) -> int:
        """Return the folder's number of buckets, decided by the first who opens it."""
        form = self.path / _FORM
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not form.exists() and any(not n.startswith(".") for n in os.listdir(self.path)):  # noqa: PTH208
                raise CacheError(
                    f"{self.path} holds something else than a cache; give an empty folder"
                )
            text = json.dumps({"format": 1, "block_bytes": block_bytes, "buckets": buckets})
            with suppress(FileExistsError):
                durable.create(form, text.encode())
            found = json.loads(form.read_bytes())
        except (OSError, ValueError) as error:
            raise CacheError(f"cannot use {self.path} as a cache: {error}") from error
        if found.get("format") != 1 or found.get("block_bytes") != block_bytes:
            raise CacheError(
                f"{self.path} is a cache of another form ({found}), wanted block_bytes="
                f"{block_bytes}; give another folder or delete this one"
            )
        return int(found["buckets"])


def _buckets_for(slots: int) -> int:
    """Return a power of two that gives about 64 ways: enough that no bucket fills early.

    A working set as large as the cache loses about 5 % to the unevenness of the buckets: numbers of
    entries are Poisson, whose mean excess over 64 is 0.4 * sqrt(64).

    >>> [_buckets_for(n) for n in (4, 200, 10_000, 4_000_000)]
    [1, 2, 128, 32768]
    """
    return min(2 ** max((slots // 64).bit_length() - 1, 0), 2**15)


def _open_lock(bucket: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    with suppress(FileNotFoundError):
        return os.open(bucket / _LOCK, flags, 0o600)
    bucket.mkdir(exist_ok=True, mode=0o700)
    return os.open(bucket / _LOCK, flags, 0o600)


def _locked(handle: int) -> bool:
    """Take the lock of a bucket; give up if its holder was stopped in the middle."""
    deadline = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
