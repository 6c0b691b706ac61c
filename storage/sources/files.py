"""Files of a source on file:// and s3://: opened for reading by pieces, and told from each other.

The errors of a file are split by what they mean for the volume. Bytes that are damaged or gone are
a `SourceError`: they become no data, and the volume is aligned without them. A disk or a server
that does not answer, and one that refuses access, say nothing of the bytes: those errors pass, the
unit fails and can be repeated.
"""

from __future__ import annotations

import errno
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import Any, BinaryIO, cast

from blake3 import blake3

from storage import s3, store
from storage.errors import (
    AccessError,
    CorruptError,
    MissingError,
    SourceError,
    UnavailableError,
    UriError,
)
from storage.uri import local_path

IMAGE_SUFFIXES = (".tif", ".tiff", ".png")

_S3_BUFFER_BYTES = 2**20
"""What one request fetches at least: header and directories of a TIFF take a few requests."""


@dataclass(frozen=True)
class FileIdentity:
    """What tells a version of a file from others without reading it."""

    name: str
    bytes: int
    tag: str
    """An ETag in S3, the time of change of a file (ns)."""

    @property
    def fingerprint(self) -> str:
        """A digest of all of it."""
        return digest(*astuple(self))


def digest(*parts: Any) -> str:
    """Return a short digest of values with a faithful ``repr``: strings, bytes, numbers, tuples.

    >>> digest("z1.png", 12) == digest("z1.png", "12")
    False
    """
    return blake3(repr(parts).encode()).hexdigest(16)


def is_file(uri: str) -> bool:
    """Return whether there is a file or an object of this name."""
    path = local_path(uri)
    if path is not None:
        return path.is_file()
    return "/" in uri.removeprefix("s3://") and store.exists(uri)


def first_bytes(uri: str, n: int) -> bytes:
    """Return the first `n` bytes of a file, fewer if it is shorter."""
    with open_file(uri) as file:
        return file.read(n)


def identity(uri: str) -> FileIdentity:
    """Return name, size and tag of a file.

    Raises
    ------
    MissingError
        If it does not exist.
    """
    name = uri.rpartition("/")[2]
    with store.errors_named(uri, "look up"):
        path = local_path(uri)
        if path is not None:
            stat = path.stat()
            return FileIdentity(name, stat.st_size, str(stat.st_mtime_ns))
        size, tag = s3.head(uri)
        return FileIdentity(name, size, str(tag))


def list_files(uri: str) -> list[FileIdentity]:
    """Return the files directly in a folder, in any order."""
    path = local_path(uri)
    if path is None:
        # What lies in sub-folders is listed too, and passed over: a folder of sections has none.
        return [FileIdentity(k, size, tag) for k, size, tag in store.walk(uri) if "/" not in k]
    with store.errors_named(uri, "list"):
        return [identity(store.join(uri, p.name)) for p in path.iterdir() if p.is_file()]


def slab_digests(uri: str, slab: Callable[[str], int | None], *, below: str = "") -> dict[int, str]:
    """Return a digest of the objects of each slab of a chunked volume, from one listing.

    The listing may be long and in any order, so the digests of a slab's objects are added up,
    modulo 2**256: one number per slab is all the memory it takes. (The additive multiset hash of
    Bellare and Micciancio, "A New Paradigm for Collision-Free Hashing", 1997; it tells changes, not
    forgeries.)

    Parameters
    ----------
    slab : callable
        Returns the index of the slab to which a key (relative to `uri`) belongs, None if it holds
        no voxels.
    below : str
        List only what lies below this key.
    """
    place = store.join(uri, below) if below else uri
    sums: dict[int, int] = {}
    for name, size, tag in store.walk(place):
        key = f"{below}/{name}" if below else name
        index = slab(key)
        if index is not None:
            number = int.from_bytes(blake3(f"{key} {size} {tag}".encode()).digest())
            sums[index] = (sums.get(index, 0) + number) % 2**256
    return {index: f"{number:064x}" for index, number in sums.items()}


@contextmanager
def open_file(uri: str) -> Iterator[BinaryIO]:
    """Open a file for reading by pieces.

    Raises
    ------
    MissingError, AccessError, UnavailableError
        As `storage.store.read_bytes`, also while it is read.
    """
    with store.errors_named(uri, "read"):
        path = local_path(uri)
        raw: Any = path.open("rb") if path is not None else _S3File(uri)
        with raw if path is not None else io.BufferedReader(raw, _S3_BUFFER_BYTES) as file:
            yield cast(BinaryIO, file)


def read_at(file: BinaryIO, offset: int, n: int, what: str) -> bytes:
    """Return `n` bytes from `offset`.

    Raises
    ------
    SourceError
        If the file ends before.
    """
    file.seek(offset)
    data = file.read(n)
    if len(data) < n:
        raise SourceError(f"{what} lies beyond the end of the file, which is truncated")
    return data


def inflate(data: bytes, n_bytes: int, decoder: Any = None) -> bytes:
    """Return what a gzip or zlib stream holds, at most `n_bytes`.

    Parameters
    ----------
    decoder : optional
        A decompressor of another format: it has ``decompress(data, max_length)`` and ``eof``.

    Raises
    ------
    ValueError
        If the stream holds more, or does not come to its end, where its checksum is.
    """
    stream = decoder or zlib.decompressobj(47)
    content = stream.decompress(data, n_bytes + 1)
    if not stream.eof or len(content) > n_bytes:
        raise ValueError(f"the stream is cut off, or holds more than {n_bytes} bytes")
    return bytes(content)


@contextmanager
def damage_named(what: str, hint: str = "it will be treated as missing") -> Iterator[None]:
    """Turn whatever a decoder raises into a `SourceError` that names what cannot be read.

    Errors that do not speak of the bytes themselves (no answer, no access, no memory) pass. An
    input/output error does speak of them: that part of the disk is lost.
    """
    try:
        yield
    except (SourceError, AccessError, UriError, MemoryError):
        raise
    except UnavailableError as error:
        cause = error.__cause__
        if isinstance(cause, OSError) and cause.errno == errno.EIO:
            raise SourceError(f"{what} cannot be read: {cause.strerror}") from error
        raise
    except (MissingError, CorruptError) as error:
        raise SourceError(f"{what} cannot be read: {error}") from error
    except OSError:
        with store.errors_named(what, "read"):
            raise
    except Exception as error:  # damaged data raises whatever the decoder of the day does
        raise SourceError(
            f"{what} cannot be decoded ({type(error).__name__}: {error}); {hint}"
        ) from error


class _S3File(io.RawIOBase):
    """An object in S3 as a file; each read is one request, for the version that was opened."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        with store.errors_named(uri, "read"):
            self._size, self._tag = s3.head(uri)
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        self._place = max(start + offset, 0)
        return self._place

    def readinto(self, buffer: Any) -> int:
        stop = min(self._place + len(buffer), self._size)
        if stop <= self._place:
            return 0
        with store.errors_named(self._uri, "read"):
            try:
                data = s3.read_range(self._uri, self._place, stop, self._tag)
            except s3.REFUSED as error:
                raise UnavailableError(
                    f"{self._uri} was replaced while it was read; read it again"
                ) from error
        memoryview(buffer).cast("B")[: len(data)] = data
        self._place += len(data)
        return len(data)
