"""Where the cache gets what it lacks: one object on a server or on a shared file system.

An origin names one object and reads any part of it, together with the version that the part is of.
A read can be tied to a version, so that parts of two never end up in one array.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np

from storage import s3
from storage.cache.entry import Bytes
from storage.errors import ConflictError, CorruptError, LimitError
from storage.store import errors_named
from storage.uri import local_path


class Version(NamedTuple):
    """Which content a name has: its tag (ETag; time of change and size of a file) and size."""

    tag: str
    size: int


class Part(NamedTuple):
    """Bytes of an object from `start` on, and the version they are of."""

    data: Bytes
    start: int
    version: Version


class ChangedError(ConflictError):
    """The object is no longer the version that was asked for."""


class Origin(Protocol):
    """One object that can be read in parts."""

    @property
    def uri(self) -> str:
        """Where it is."""

    @property
    def name(self) -> str:
        """What tells this object from every other one, of other servers too."""

    def version(self) -> Version:
        """Ask for the current version."""

    def read(
        self, start: int, stop: int | None, tag: str | None = None, limit: int | None = None
    ) -> Part:
        """Read bytes like a slice (a negative start counts from the end), as far as there are any.

        Raises
        ------
        ChangedError
            If the object does not have the version `tag`.
        LimitError
            If these are more than `limit` bytes.
        """


def server(uri: str) -> str:
    """Return which server an s3 URI is looked up at; "" for a file."""
    if local_path(uri) is not None:
        return ""
    return str(s3.client(uri)[0].config.get("endpoint", "aws"))


def origin(uri: str, at: str | None = None) -> Origin:
    """Return the origin of an object on file:// or s3://; `at` is what `server` says, if known."""
    if uri.startswith("s3:"):
        return S3Origin(uri, server(uri) if at is None else at)
    return FileOrigin(uri)


@dataclass(frozen=True)
class S3Origin:
    """An object in S3."""

    uri: str
    server: str

    @property
    def name(self) -> str:
        """The URI and the server, since a URI does not name one."""
        return f"{self.server}|{self.uri}"

    def version(self) -> Version:
        """One HEAD request."""
        with errors_named(self.uri, "look up"):
            client, key = s3.client(self.uri)
            return _version(client.head(key))

    def read(
        self, start: int, stop: int | None, tag: str | None = None, limit: int | None = None
    ) -> Part:
        """One GET request."""
        with errors_named(self.uri, "read"):
            client, key = s3.client(self.uri)
            options: Any = {} if tag is None else {"if_match": tag}
            if start < 0:
                options["range"] = {"suffix": -start}
            elif stop is not None:
                options["range"] = (start, stop)
            elif start:
                options["range"] = {"offset": start}
            try:
                answer = client.get(key, options=options)
                first, last = answer.range
                check_size(self.uri, last - first, limit)
                data = np.frombuffer(answer.bytes(), np.uint8)
            except s3.REFUSED as error:
                raise ChangedError(f"{self.uri} changed while it was read; read again") from error
            if data.size != last - first:
                raise CorruptError(
                    f"{self.uri}: the server sent {data.size} bytes of {last - first}; read again"
                )
            return Part(data, first, _version(answer.meta))


@dataclass(frozen=True)
class FileOrigin:
    """A file, on a file system worth caching: one that other machines serve."""

    uri: str

    @property
    def name(self) -> str:
        """The URI."""
        return self.uri

    def version(self) -> Version:
        """Time of change and size."""
        with errors_named(self.uri, "look up"):
            return file_version(os.stat(local_path(self.uri)))  # type: ignore[arg-type]  # noqa: PTH116

    def read(
        self, start: int, stop: int | None, tag: str | None = None, limit: int | None = None
    ) -> Part:
        """Read from one open file, which a rename over its name leaves whole."""
        with errors_named(self.uri, "read"):
            handle = os.open(local_path(self.uri), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)  # type: ignore[arg-type]
            try:
                version = file_version(os.fstat(handle))
                if tag not in (None, version.tag):
                    raise ChangedError(f"{self.uri} changed while it was read; read again")
                first, last, _ = slice(start, stop).indices(version.size)
                check_size(self.uri, last - first, limit)
                data = np.empty(max(last - first, 0), np.uint8)
                filled = os.preadv(handle, [data.data], first) if data.size else 0
                if filled != data.size:
                    raise CorruptError(f"{self.uri} became shorter while it was read; read again")
                return Part(data, first, version)
            finally:
                os.close(handle)


def check_size(name: str, size: int, limit: int | None) -> None:
    """Refuse to read more than an array's metadata allow for."""
    if limit is not None and size > limit:
        raise LimitError(f"{name}: {size} bytes would be read; its metadata allow for {limit}")


def _version(meta: object) -> Version:
    return Version(str(meta["e_tag"]), int(meta["size"]))  # type: ignore[index]


def file_version(stat: os.stat_result) -> Version:
    """Return time of change, file number and size of a file."""
    return Version(f"{stat.st_mtime_ns}-{stat.st_ino}", stat.st_size)
