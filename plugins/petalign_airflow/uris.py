"""URIs: which ones a run may touch, and how a browser reaches what lies there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from urllib.parse import quote

from storage.errors import UriError
from storage.uri import normalise_uri

_NAME = re.compile(r"[\w.,=+@()~: -]+")
"""A segment of a path. What some programs do not take literally stays out: % ? # * \\ { } $."""


def segments(uri: str) -> tuple[str, ...]:
    """Split a URI into its scheme, its bucket ("" for files) and the names of its path.

    :raises UriError: if it is not exactly one place in S3 or an absolute local path

    >>> segments("s3://petalign/demo/raw.zarr/")
    ('s3', 'petalign', 'demo', 'raw.zarr')
    >>> segments("file:///data")
    ('file', '', 'data')
    """
    if "://" not in uri:
        raise UriError("expected s3://bucket/... or file:///...")
    scheme, _, path = normalise_uri(uri).partition("://")
    bucket, *names = path.rstrip("/").split("/")
    for name in names:
        if not _NAME.fullmatch(name):
            raise UriError(f"{name!r} has characters that are not allowed in a path")
    return scheme, bucket, *names


def is_below(uri: str, prefixes: Sequence[str]) -> bool:
    """Return whether `uri` is one of `prefixes` or below it, compared segment by segment.

    :raises UriError: if `uri` or a prefix is not a URI that `segments` accepts

    >>> allowed = ["s3://petalign/cohort-1"]
    >>> is_below("s3://petalign/cohort-1/a", allowed), is_below("s3://petalign/cohort-12", allowed)
    (True, False)
    """
    own = segments(uri)
    return any(own[: len(prefix)] == prefix for prefix in map(segments, prefixes))


def browser_url(uri: str, environment: Mapping[str, str]) -> str:
    """Return the address at which a browser finds the object or folder `uri`.

    :param environment: ``AWS_ENDPOINT_URL`` and ``AWS_REGION`` say where a bucket is served

    >>> browser_url("s3://petalign/a b", {"AWS_ENDPOINT_URL": "http://127.0.0.1:8333"})
    'http://127.0.0.1:8333/petalign/a%20b'
    """
    scheme, bucket, *names = segments(uri)
    path = "/".join(quote(name) for name in names)
    if scheme == "file":
        return f"file:///{path}"
    if endpoint := environment.get("AWS_ENDPOINT_URL"):
        return f"{endpoint.rstrip('/')}/{bucket}/{path}"
    region = environment.get("AWS_REGION", "us-east-1")
    return f"https://{bucket}.s3.{region}.amazonaws.com/{path}"
