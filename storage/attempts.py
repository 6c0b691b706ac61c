"""What a failed access means, and how a write whose answer was lost is looked up.

A conditional PUT that is sent again meets the object that its first attempt has stored (icechunk,
design document 017), and an answer can be lost on the way. So what counts is never the answer
alone, but what is stored afterwards.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from storage import s3
from storage.errors import (
    AccessError,
    ConflictError,
    MissingError,
    StorageError,
    UnavailableError,
    UriError,
)
from storage.uri import local_path

_PAUSES_S = (0.05, 0.2, 1.0)
"""Between repetitions of a PUT whose connection broke."""


@contextmanager
def errors_named(uri: str, verb: str) -> Iterator[None]:
    """Turn the errors of file system and obstore into those of `storage`, naming the object."""
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        translate = s3.translated if uri.startswith("s3:") else _file_error
        raise translate(error, uri, verb) from error
    except s3.S3Error as error:
        raise s3.translated(error, uri, verb) from error


def _file_error(error: OSError, uri: str, verb: str) -> StorageError:
    if isinstance(error, IsADirectoryError | NotADirectoryError) and verb == "write":
        return UriError(f"cannot write {uri}: a file has the name of a folder, or a folder its own")
    if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError):
        return MissingError(f"{uri} does not exist")
    if isinstance(error, PermissionError):
        return AccessError(f"cannot {verb} {uri}: {error.strerror}")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UnavailableError(f"cannot {verb} {uri}: the disk is full; make room and resume")
    return UnavailableError(f"cannot {verb} {uri}: {error.strerror or error}")


def put_or_read_back(
    uri: str, put: Callable[[], None], data: bytes | memoryview, *, expected: str | None = None
) -> bytes | None:
    """Put `data`; if the answer is no or lost, look what is there.

    A conditional PUT may be repeated: obstore does so after a 5xx, but not after a connection that
    broke. Returns None if `data` is there, or the other content that stands in its way.

    Parameters
    ----------
    expected : str, optional
        Tag of the content that is to be replaced; None for "nothing is there".
    """
    for pause_s in (*_PAUSES_S, None):
        try:
            with errors_named(uri, "write"):
                put()
        except UnavailableError as error:
            cause = error.__cause__
            refused = isinstance(cause, (FileExistsError, *s3.REFUSED))
            if not refused and not isinstance(cause, s3.S3Error):
                raise  # the disk failed: what a look at the cache shows may not be on it
            try:
                with errors_named(uri, "read"):
                    path = local_path(uri)
                    stored, tag = (path.read_bytes(), None) if path is not None else s3.read(uri)
            except MissingError:
                if refused:
                    raise ConflictError(f"{uri} was deleted since it was read") from cause
                if pause_s is None:
                    raise error from cause
            except StorageError:
                raise error from cause
            else:
                if stored == data:
                    return None
                if refused or tag != expected:
                    return stored
                if pause_s is None:
                    raise
            time.sleep(pause_s or 0.0)
        else:
            return None
    raise AssertionError("the last attempt returns or raises")


def is_stored(uri: str, data: bytes | memoryview) -> bool:
    """Return whether an object holds `data`, so that only the answer to its writing was lost."""
    try:
        with errors_named(uri, "read"):
            return s3.read(uri)[0] == data
    except StorageError:
        return False
