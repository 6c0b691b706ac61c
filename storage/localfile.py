"""Read files below a folder: whole or in part, bounded, and never through a link.

Opening refuses a link at the path's end (O_NOFOLLOW), and does not wait for a pipe. The folders
above are resolved once: who can replace one of them while it is read can replace the data as well.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storage.errors import LimitError, UriError

_MAX_KNOWN = 4096
"""Folders whose paths are remembered to be free of links."""


class LocalFolder:
    """The files below one folder, which itself may be reached through links."""

    def __init__(self, path: Path) -> None:
        self.path = path.resolve()
        self._root = str(self.path)
        self._known: set[str] = set()

    def check(self, key: str) -> None:
        """Refuse a key that leads through a symbolic link.

        Raises
        ------
        UriError
            If it does.
        """
        path = f"{self._root}/{key}"
        if os.path.realpath(path) != path:
            raise self._link(key)

    def read(self, key: str, part: slice, limit: int) -> NDArray[np.uint8]:
        """Return the bytes of a file that `part` selects; what lies past its end is left out.

        Raises
        ------
        LimitError
            If these are more than `limit` bytes; nothing is read then.
        UriError
            If the key leads through a symbolic link, or not to a regular file.
        OSError
            If the file does not exist, or the disk fails.
        """
        folder = key.rpartition("/")[0]
        if folder and folder not in self._known:
            self.check(folder)
        try:
            file = os.open(
                f"{self._root}/{key}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            )
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise self._link(key) from None
            raise
        try:
            state = os.fstat(file)
            if not stat.S_ISREG(state.st_mode):
                if stat.S_ISDIR(state.st_mode):
                    raise IsADirectoryError(errno.EISDIR, "is a folder", key)
                raise UriError(f"file://{self._root}/{key} is a device or a pipe, not a file")
            start, stop, _ = part.indices(state.st_size)
            size = max(stop - start, 0)
            if size > limit:
                raise LimitError(
                    f"file://{self._root}/{key}: {size} bytes would be read; its metadata allow "
                    f"for {limit}"
                )
            data = np.empty(size, np.uint8)
            filled = 0
            while filled < size:
                count = os.preadv(file, [memoryview(data)[filled:]], start + filled)
                if count == 0:
                    break  # it has become shorter
                filled += count
        finally:
            os.close(file)
        if folder:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known.add(folder)
        return data[:filled]

    def prune(self, key: str) -> None:
        """Remove the folders that held a deleted file and now hold nothing: S3 has none either."""
        for folder in list((self.path / key).relative_to(self.path).parents)[:-1]:
            try:
                (self.path / folder).rmdir()
            except OSError:
                return
            self._known.discard(str(folder))

    def _link(self, key: str) -> UriError:
        return UriError(
            f"file://{self._root}/{key} is reached through a symbolic link, which may lead "
            "anywhere; put the data itself there"
        )
