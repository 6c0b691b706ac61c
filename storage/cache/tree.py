"""A prefix as a tree of read-only files: what a mounted file system shows.

Each folder is listed when it is looked into, and the listing believed for a while. It gives the
version (ETag and size) of every file, and a file's bytes are read of that version: from the cache
if it has them, otherwise by ranges.
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import NamedTuple

import numpy as np

from storage import s3
from storage.cache.blocks import BlockCache
from storage.cache.entry import Bytes
from storage.cache.origin import Version, file_version, origin, server
from storage.errors import MissingError, UriError
from storage.store import errors_named, join, normalise_uri
from storage.uri import check_key, local_path

LISTING_S = 10.0
"""How long a listing is believed by default."""


class Node(NamedTuple):
    """A file or folder."""

    is_folder: bool
    version: Version
    time_s: float
    """Of the last change, since 1970."""


_EMPTY = np.empty(0, np.uint8)
FOLDER = Node(True, Version("", 0), 0.0)


class Tree:
    """The files below a URI.

    Parameters
    ----------
    cache : BlockCache, optional
        What reads go through; without it every read is a request.
    listing_s : float
        How long a folder's listing is believed, and thereby a file's version.
    """

    def __init__(
        self, uri: str, cache: BlockCache | None = None, *, listing_s: float = LISTING_S
    ) -> None:
        self.uri = normalise_uri(uri)
        self.cache = cache
        self.listing_s = listing_s
        self._server = server(self.uri)
        self._listings: dict[str, tuple[float, dict[str, Node]]] = {}
        self._guard = threading.Lock()

    def node(self, path: str) -> Node:
        """Return what is at a path ("" is the root).

        Raises
        ------
        MissingError
            If there is nothing.
        """
        if not path:
            return FOLDER
        folder, _, name = path.rpartition("/")
        found = self.names(folder).get(name)
        if found is None:
            raise MissingError(f"{self.uri}/{path} does not exist")
        return found

    def names(self, path: str) -> dict[str, Node]:
        """Return what a folder holds, by name."""
        now = time.monotonic()
        when, names = self._listings.get(path, (-1e9, {}))
        if now - when > self.listing_s:
            names = self._list(path)
            with self._guard:
                if len(self._listings) > 10_000:
                    self._listings.clear()
                self._listings[path] = (now, names)
        return names

    def read(self, path: str, version: Version, start: int, size: int) -> Bytes:
        """Return bytes of a file, fewer at its end.

        Raises
        ------
        ChangedError
            If the file has another version by now.
        """
        source = origin(self._uri(path), self._server)
        start, stop = min(start, version.size), min(start + size, version.size)
        if self.cache is not None:
            return self.cache.get_version(source, version, start, stop)
        return source.read(start, stop, version.tag).data if stop > start else _EMPTY

    def _uri(self, path: str) -> str:
        return join(self.uri, path) if path else self.uri

    def _list(self, path: str) -> dict[str, Node]:
        uri = self._uri(path)
        with errors_named(uri, "list"):
            found = _files(uri) if local_path(uri) is not None else _objects(uri)
        shown = {}
        for name, node in found.items():
            with suppress(UriError):  # a key like "a//b" has no place in a file system
                shown[check_key(name)] = node
        return shown


def _objects(uri: str) -> dict[str, Node]:
    client, key = s3.client(uri)
    answer = client.list_with_delimiter(prefix=key or None)
    found = {
        str(item["path"]).rpartition("/")[2]: Node(
            False, Version(str(item["e_tag"]), item["size"]), item["last_modified"].timestamp()
        )
        for item in answer["objects"]
    }
    # A folder hides an object of the same name, of which a file system has no notion.
    return found | {
        str(prefix).rstrip("/").rpartition("/")[2]: FOLDER for prefix in answer["common_prefixes"]
    }


def _files(uri: str) -> dict[str, Node]:
    found = {}
    with os.scandir(local_path(uri)) as files:
        for file in files:
            if file.is_dir(follow_symlinks=False):
                found[file.name] = FOLDER
            elif file.is_file(follow_symlinks=False):
                state = file.stat(follow_symlinks=False)
                found[file.name] = Node(False, file_version(state), state.st_mtime)
    return found
