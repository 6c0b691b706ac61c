"""URIs in their one form, and the rule which keys may exist.

A URI is ``file:///absolute/path`` or ``s3://bucket/key``. What follows the scheme is taken
literally: no percent-encoding, no query, no fragment. Segments are separated by single slashes; an
empty segment, ``.``, ``..`` and control characters are refused everywhere, so that no key that was
read from a file or came in a request can leave the folder it was joined to. Keys are as long as
both S3 and file systems take them.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from storage.errors import UriError

SCHEMES = ("file", "s3")
MAX_KEY_BYTES = 1024
MAX_SEGMENT_BYTES = 255
_KERNEL = re.compile(r"(proc|sys|dev)(?!/shm/)(/|$)")
"""Folders whose files are no data but the state of the machine and of its processes."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_HAS_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)


def check_key(key: str) -> str:
    """Return `key` if it names an object below a folder, else say what is wrong with it.

    >>> check_key("aligned/0/c/0/0/1")
    'aligned/0/c/0/0/1'

    Raises
    ------
    UriError
        If the key is empty, absolute, too long, or has an empty segment, ``.``, ``..`` or a
        control character.
    """
    if _CONTROL.search(key):
        raise UriError(f"key {key[:80]!r} holds a control character; use printable characters")
    segments = key.split("/")
    for segment in segments:
        if segment in ("", ".", ".."):
            raise UriError(
                f"key {key[:80]!r} has the segment {segment!r}; a key is a relative path whose "
                "segments are neither empty nor '.' nor '..'"
            )
    # Four bytes a character at most: short keys, which nearly all are, need no encoding.
    if len(key) > MAX_SEGMENT_BYTES // 4:
        try:
            longest = max(len(segment.encode()) for segment in segments)
        except UnicodeEncodeError:
            raise UriError(f"key {key[:80]!r} is not valid Unicode") from None
        if len(key.encode()) > MAX_KEY_BYTES or longest > MAX_SEGMENT_BYTES:
            raise UriError(
                f"key {key[:80]!r}... is too long; the limits are {MAX_KEY_BYTES} bytes, and "
                f"{MAX_SEGMENT_BYTES} between two slashes"
            )
    elif not key.isascii() and _SURROGATE.search(key):
        raise UriError(f"key {key!r} is not valid Unicode")
    return key


def normalise_uri(uri: str | Path) -> str:
    """Return the URI in its one form, without a trailing slash.

    A plain path is the user's own: ``~`` and ``..`` in it are resolved. A URI is taken literally,
    and ``..`` in it is refused.

    >>> normalise_uri("/data/./em//raw.zarr/")
    'file:///data/em/raw.zarr'
    >>> normalise_uri("s3://petalign/demo/")
    's3://petalign/demo'

    Raises
    ------
    UriError
        If the scheme is not file or s3, the bucket's name is not valid, a file URI is not
        absolute or leads into the system's own folders, or a key is refused by `check_key`.
    """
    text = os.fspath(uri)
    match = _HAS_SCHEME.fullmatch(text)
    if match is None:
        if not text or "\0" in text:
            raise UriError(f"expected a path or a URI, got {text!r}")
        path = os.path.abspath(os.path.expanduser(text)).lstrip("/")  # noqa: PTH100, PTH111
        return "file:///" + (_check_path(path) if path else "")
    scheme, rest = match[1], match[2].rstrip("/")
    if scheme not in SCHEMES:
        raise UriError(
            f"{text!r} has the scheme {scheme!r}; expected a path, file:///path or s3://bucket/key"
        )
    if scheme == "file":
        if match[2][:1] != "/":
            raise UriError(f"{text!r} is not absolute; write file:///path, with three slashes")
        return "file:///" + (_check_path(rest[1:]) if rest else "")
    bucket, _, key = rest.partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise UriError(
            f"{text!r} names the bucket {bucket!r}; expected 3 to 63 of a-z, 0-9, '.' and '-'"
        )
    return f"s3://{bucket}/{check_key(key)}" if key else f"s3://{bucket}"


def _check_path(path: str) -> str:
    if _KERNEL.match(path):
        raise UriError(f"'file:///{path[:80]}' is a place of the system, not of data")
    return check_key(path)


def join(uri: str, *parts: str) -> str:
    """Return the URI of an object or folder below `uri`; each part may hold several segments.

    >>> join("s3://petalign/demo", "runs", "4f2a", "aligned/0")
    's3://petalign/demo/runs/4f2a/aligned/0'

    Raises
    ------
    UriError
        If `uri` or a part is not allowed.
    """
    below = "/".join(check_key(part) for part in parts)
    return f"{normalise_uri(uri).rstrip('/')}/{below}" if below else normalise_uri(uri)


def local_path(uri: str) -> Path | None:
    """Return the path of a file URI, None for another scheme.

    >>> local_path("file:///data/raw.tif")
    PosixPath('/data/raw.tif')
    """
    scheme, _, rest = normalise_uri(uri).partition("://")
    return Path(rest) if scheme == "file" else None


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Return bucket and key of an s3 URI; the key of a bucket is empty.

    >>> bucket_and_key("s3://petalign/demo/zarr.json")
    ('petalign', 'demo/zarr.json')
    """
    scheme, _, rest = normalise_uri(uri).partition("://")
    if scheme != "s3":
        raise UriError(f"{uri!r} is not in S3; expected s3://bucket/key")
    bucket, _, key = rest.partition("/")
    return bucket, key
