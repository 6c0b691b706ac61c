"""Atomic and durable files: what an object store promises, on a local file system.

A reader sees a whole file or none; when a call returns, file and name are on disk. The names of
unfinished files start with a dot and end in ``.partial``: no listing shows them, and a process
that was killed leaves nothing else behind.

Create-only is a hard link, which fails if the name exists (the method of maildir, D. J. Bernstein);
replacing is a rename. obstore's own local store links too, but does not call fsync and cannot
swap, hence this module.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PARTIAL = ".partial"
_LOCK = ".lock"


def is_unfinished(name: str) -> bool:
    """Return whether a file's name is one of this module's own: a lock or an unfinished copy.

    >>> is_unfinished(".LATEST.json.lock"), is_unfinished(".zarray")
    (True, False)
    """
    return name.startswith(".") and name.endswith((_PARTIAL, _LOCK))


def create(path: Path, data: bytes | memoryview) -> None:
    """Write a new file.

    Raises
    ------
    FileExistsError
        If the name is taken; its content is not compared.
    OSError
        If the disk is full or fails: then the name does not exist, unless it is the last fsync
        of the folder that failed.
    """
    with _complete_copy(path, data) as copy:
        try:
            os.link(copy, path)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
                raise
            # A file system without hard links (exFAT, some FUSE mounts): one writer at a time.
            with locked(path):
                if path.exists():
                    raise FileExistsError(errno.EEXIST, "exists", str(path)) from None
                copy.rename(path)
    _sync_folder(path.parent)


def replace(path: Path, data: bytes | memoryview) -> None:
    """Write a file over whatever has its name."""
    with _complete_copy(path, data) as copy:
        copy.replace(path)
    _sync_folder(path.parent)


def etag(data: bytes | memoryview) -> str:
    """Return the tag of a file's content, which `swap` compares.

    >>> etag(b"")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(data).hexdigest()


def swap(path: Path, data: bytes, expected: str | None) -> bool:
    """Write a file only if its content has the tag `expected`; None means "does not exist".

    Returns False, and writes nothing, if it has another. Writers exclude each other; readers
    never wait.
    """
    with locked(path):
        try:
            current = etag(path.read_bytes())
        except FileNotFoundError:
            current = None
        if current != expected:
            return False
        replace(path, data)
    return True


def age_s(path: Path) -> float:
    """Return how many seconds ago a file was written, by the clock of its file system.

    A server's clock is read off a file that is made for that.
    """
    written = path.stat().st_mtime
    clock = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex}{_PARTIAL}")
    try:
        clock.touch()
        return clock.stat().st_mtime - written
    finally:
        clock.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock that belongs to `path`; the system frees it when the process dies."""
    make_folder(path.parent)
    # A file of its own: flock on a folder fails on NFS, and `path` itself is replaced.
    lock = os.open(path.with_name(f".{path.name}{_LOCK}"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextmanager
def _complete_copy(path: Path, data: bytes | memoryview) -> Iterator[Path]:
    """Yield a file beside `path` that holds `data`, on disk; gone at the end if not renamed."""
    make_folder(path.parent)
    copy = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex}{_PARTIAL}")
    try:
        with copy.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        yield copy
    finally:
        with suppress(FileNotFoundError):
            copy.unlink()


def make_folder(folder: Path) -> None:
    """Create a folder and those above it; their names are on disk afterwards."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for new in reversed(missing):
        with suppress(FileExistsError):
            new.mkdir()
        _sync_folder(new.parent)


def remove_empty(folder: Path) -> None:
    """Remove the empty folders of a tree, and the unfinished files of processes that are gone."""
    for path, _, names in folder.walk(top_down=False):
        for name in filter(is_unfinished, names):
            (path / name).unlink(missing_ok=True)
        if not any(path.iterdir()):
            path.rmdir()


def _sync_folder(folder: Path) -> None:
    """Make the folder's names durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
