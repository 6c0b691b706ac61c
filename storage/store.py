"""The one wrapper through which every object is read and written, on file:// and s3://.

Three ways to write, and no other:

- **create**: for everything that a run produces. Atomic, durable, and only once: the same bytes
  again are a success, other bytes a `ConflictError`. An answer that was lost on the way is looked
  up (read back and compared), because a repeated conditional PUT meets its own object
  (icechunk, design document 017).
- **replace**: atomic overwrite, for progress that nobody's correctness hangs on.
- **compare and swap**: for the publish pointer and for claims.

What is created is noted in the open journal (`storage.journal`), which is how a unit's record comes
to name every object that the unit wrote. `storage.durable` does this on a file system, `storage.s3`
in S3.
"""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from storage import durable, journal, s3
from storage.attempts import errors_named, is_stored, put_or_read_back
from storage.errors import (
    ConflictError,
    CorruptError,
    MissingError,
    UnavailableError,
)
from storage.uri import join, local_path, normalise_uri

if TYPE_CHECKING:
    from zarr.abc.store import Store

__all__ = [
    "age_s",
    "canonical_json",
    "compare_and_swap_json",
    "create_bytes",
    "create_json",
    "delete",
    "errors_named",
    "exists",
    "join",
    "list_names",
    "normalise_uri",
    "parsed",
    "read_bytes",
    "read_json",
    "read_json_tagged",
    "remove_folder",
    "replace_bytes",
    "replace_json",
    "size",
    "walk",
    "zarr_store",
]

REREAD_S = (0.2, 0.5)
"""Pauses before an object in S3 that is no JSON is read once more."""


def read_bytes(uri: str) -> bytes:
    """Return a whole object.

    Raises
    ------
    MissingError
        If it does not exist.
    """
    with errors_named(uri, "read"):
        path = local_path(uri)
        data = path.read_bytes() if path is not None else s3.read(uri)[0]
    journal.note_read(uri)
    return data


def read_json(uri: str) -> Any:
    """Return the value of a JSON object.

    Raises
    ------
    MissingError
        If it does not exist.
    CorruptError
        If it is not JSON.
    """
    return parsed(uri, lambda: (read_bytes(uri), None))[0]


def read_json_tagged(uri: str) -> tuple[Any, str | None]:
    """Return the value of a JSON object and the tag for `compare_and_swap_json`.

    ``(None, None)`` if it does not exist.
    """

    def read() -> tuple[bytes, str | None]:
        with errors_named(uri, "read"):
            path = local_path(uri)
            if path is None:
                return s3.read(uri)
            data = path.read_bytes()
            return data, durable.etag(data)

    try:
        return parsed(uri, read)
    except MissingError:
        return None, None


def exists(uri: str) -> bool:
    """Return whether there is an object, not a folder, of this name."""
    with errors_named(uri, "look up"):
        path = local_path(uri)
        return path.is_file() if path is not None else s3.has(uri)


def list_names(uri: str) -> list[str]:
    """Return the names of the objects and folders directly below `uri`, sorted.

    A folder that does not exist has no names. One request per 1,000 names in S3.
    """
    try:
        with errors_named(uri, "list"):
            path = local_path(uri)
            if path is not None:
                names = [n for n in os.listdir(path) if not durable.is_unfinished(n)]  # noqa: PTH208
            else:
                names = s3.names(uri)
    except MissingError:
        return []
    return sorted(names)


def size(uri: str) -> int:
    """Return the size of an object in bytes, without reading it.

    Raises
    ------
    MissingError
        If it does not exist.
    """
    with errors_named(uri, "look up"):
        path = local_path(uri)
        return path.stat().st_size if path is not None else s3.head(uri)[0]


def age_s(uri: str) -> float:
    """Return how many seconds ago an object was last written, by the store's own clock.

    The clock of this machine does not enter: it may be wrong by hours and harm nothing.

    Raises
    ------
    MissingError
        If it does not exist.
    """
    with errors_named(uri, "look up"):
        path = local_path(uri)
        return durable.age_s(path) if path is not None else s3.age_s(uri)


def delete(uri: str) -> None:
    """Delete an object, if it exists.

    For what no reader can reach any more, and for scratch data: objects of a published run are
    immutable.
    """
    with errors_named(uri, "delete"):
        path = local_path(uri)
        if path is not None:
            path.unlink(missing_ok=True)
        else:
            s3.delete(uri)


def remove_folder(uri: str) -> None:
    """Remove the folders of a tree whose objects are deleted; in S3 there are none.

    What processes that were killed left unfinished goes too; objects stay.
    """
    path = local_path(uri)
    if path is None or not path.is_dir():
        return
    with errors_named(uri, "delete"):
        durable.remove_empty(path)


def walk(uri: str) -> Iterator[tuple[str, int, str]]:
    """Yield key (relative to `uri`), size and tag of every object below a folder, in any order.

    The tag changes when the object does: an ETag in S3, the time of change of a file.
    """
    with errors_named(uri, "list"):
        path = local_path(uri)
        if path is not None:
            for folder, _, names in path.walk():
                for name in (n for n in names if not durable.is_unfinished(n)):
                    stat = (folder / name).stat()
                    key = (folder / name).relative_to(path).as_posix()
                    yield key, stat.st_size, str(stat.st_mtime_ns)
        else:
            yield from s3.walk(uri)


def create_bytes(uri: str, data: bytes | memoryview) -> None:
    """Create an object once; the same content again is a success.

    Raises
    ------
    ConflictError
        If the object exists with other content, which stays as it is.
    StorageError
        If the object could not be created and is not there either.
    """
    wanted = journal.digest_to_mend(uri)
    if wanted is not None:
        _mend(uri, data, wanted)
        return

    def put() -> None:
        path = local_path(uri)
        if path is not None:
            durable.create(path, data)
        else:
            s3.put(uri, data, mode="create")

    stored = put_or_read_back(uri, put, data)
    if stored is not None:
        raise ConflictError(
            f"{uri} exists with other content ({len(stored)} bytes, sha256 "
            f"{durable.etag(stored)[:16]}; new: {len(data)} bytes, sha256 "
            f"{durable.etag(data)[:16]}). Objects of a run are written once: a unit that gives "
            "another result the second time depends on more than its inputs. Start a new run, "
            "and report this if code and configuration did not change"
        )
    journal.note_written(uri, data)


def _mend(uri: str, data: bytes | memoryview, wanted: str) -> None:
    """Write the recorded content of an object over whatever is there; readers see it whole."""
    found = journal.digest_of(data)
    if found != wanted:
        raise ConflictError(
            f"{uri} cannot be mended: computed again it has the digest {found[:16]}, its record "
            f"says {wanted[:16]}. Its inputs, the code or a library changed since; start a new run"
        )
    try:
        stored = read_bytes(uri)
    except MissingError:
        stored = None
    if stored is None or journal.digest_of(stored) != wanted:
        _overwrite(uri, data)
    journal.note_written(uri, data)


def create_json(uri: str, value: Any) -> None:
    """Create a JSON object once, as canonical text: sorted keys, so equal values are equal bytes.

    Raises
    ------
    ConflictError
        If the object exists with another value.
    """
    create_bytes(uri, canonical_json(uri, value))


def replace_bytes(uri: str, data: bytes | memoryview) -> None:
    """Write an object over whatever has its name; readers see the old or the new one, whole."""
    _overwrite(uri, data)


def _overwrite(uri: str, data: bytes | memoryview) -> None:
    try:
        with errors_named(uri, "write"):
            path = local_path(uri)
            if path is not None:
                durable.replace(path, data)
            else:
                s3.put(uri, data, mode="overwrite")
    except UnavailableError as error:
        if not (isinstance(error.__cause__, s3.S3Error) and is_stored(uri, data)):
            raise


def replace_json(uri: str, value: Any) -> None:
    """Write a JSON object over whatever has its name."""
    replace_bytes(uri, canonical_json(uri, value))


def compare_and_swap_json(uri: str, value: Any, etag: str | None) -> str | None:
    """Write a JSON object only if it is still the one that was read with `etag`.

    Two writers must never swap in equal values: a lost answer is told from a lost race by what is
    stored. Put something of your own into the value.

    Parameters
    ----------
    etag : str or None
        As `read_json_tagged` returned it; None means that the object must not exist.

    Returns
    -------
    etag : str
        Of the value that was written, for the next swap.

    Raises
    ------
    ConflictError
        If another writer was first. Read again and decide anew.
    """
    data = canonical_json(uri, value)
    tag: str | None = None

    def put() -> None:
        nonlocal tag
        path = local_path(uri)
        if path is not None:
            if not durable.swap(path, data, etag):
                raise FileExistsError(errno.EEXIST, "changed since it was read", str(path))
            tag = durable.etag(data)
        else:
            tag = s3.put(uri, data, mode="create" if etag is None else {"e_tag": etag})

    if put_or_read_back(uri, put, data, expected=etag) is not None:
        wanted = "did not exist" if etag is None else f"had the tag {etag}"
        raise ConflictError(f"{uri} changed since it {wanted}; read it again and decide anew")
    if tag is None:  # the answer was lost
        stored, tag = read_json_tagged(uri)
        if stored != json.loads(data):
            raise ConflictError(f"{uri} was swapped, and swapped again by another writer")
    return tag


def zarr_store(uri: str, *, read_only: bool, sparse: bool = False) -> Store:
    """Return the zarr store of the folder `uri`: checked keys, create-only, nothing missing.

    `sparse` lets absent chunks be read as the fill value, as zarr's specification says: only for
    sources that others wrote.
    """
    from storage.checked import CheckedStore  # zarr takes a second to import

    return CheckedStore(uri, read_only=read_only, sparse=sparse)


def canonical_json(uri: str, value: Any) -> bytes:
    """Return the one text of a JSON value: equal values are equal bytes."""
    try:
        text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError) as error:
        error.add_note(f"while writing {uri}: JSON holds no NaN, infinity or array")
        raise
    return text.encode() + b"\n"


def parsed(uri: str, read: Callable[[], tuple[bytes, str | None]]) -> tuple[Any, str | None]:
    """Return the value of what is read, and its tag.

    JSON carries no checksum. What a network has cut short looks like damage, and is right when it
    is read again.
    """
    for pause_s in (*REREAD_S, None):
        data, tag = read()
        try:
            return json.loads(data), tag
        except (ValueError, RecursionError) as error:
            if pause_s is None or local_path(uri) is not None:
                message = f"{uri} is not JSON ({error}); it has {len(data)} bytes"
                raise CorruptError(message) from None
        time.sleep(pause_s)
    raise AssertionError("the last reading returns or raises")
