"""How S3 is reached, and what its errors mean: the only module that imports obstore.

Server and keys come from `storage.credentials`. Requests are path-style, bodies carry a SHA-256
that the server checks, and retries are obstore's. Functions raise obstore's errors; `translated`
turns them into those of `storage`.
"""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections.abc import Iterator
from datetime import timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from http.client import HTTPException
from typing import TYPE_CHECKING, Literal
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    GenericError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from storage.credentials import provider, server
from storage.errors import (
    AccessError,
    CorruptError,
    LimitError,
    MissingError,
    StorageError,
    UnavailableError,
    UriError,
)
from storage.uri import bucket_and_key

if TYPE_CHECKING:
    from obstore import Bytes, GetOptions, PutMode
    from obstore.store import ClientConfig, RetryConfig, S3Config, S3Store

S3Error = BaseError
"""Base of what these functions raise, besides FileNotFoundError."""

REFUSED = (AlreadyExistsError, PreconditionError)
"""A conditional PUT was declined: somebody else, or this call's own retry, was first."""

RETRY: RetryConfig = {
    "max_retries": 10,
    "retry_timeout": timedelta(seconds=120),
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=10),
        # A pause is drawn between the first one and `base` times the one before: with 2 they do
        # not grow on average, and all retries are used up within 3 s.
        "base": 4,
    },
}
"""Outlasts a server that is down for 30 s in the median, 8 s at least in nine of ten cases;
connection errors, 5xx and dropped answers."""

_REFUSAL = re.compile(r"403 Forbidden|401 Unauthorized|ExpiredToken|InvalidAccessKeyId")
"""How listings, and servers that answer 400, say that the keys are not good; never retried."""

_MD5 = re.compile(r'"[0-9a-f]{32}"')
_LARGEST_MD5 = 4 * 2**20
"""Bytes; MD5 takes 2 ms a MiB. Larger objects are shards, whose chunks have checksums."""

REQUEST_TIMEOUT = timedelta(minutes=5)
"""One attempt. obstore's own 30 s would cut a shard of 128 MiB below 4.5 MB/s."""


def read(uri: str) -> tuple[bytes, str | None]:
    """Return an object's content and ETag.

    An answer whose MD5 is not its ETag was damaged on its way, unless the server's ETags are no
    digests (uploads in parts, SSE-KMS): then a second answer is the same as the first.
    """
    store, key = client(uri)
    data, tag = _answer(store, key)
    if _fits(data, tag):
        return data, tag
    again, second = _answer(store, key)
    if _fits(again, second) or (again, second) == (data, tag):
        return again, second
    raise GenericError(f"two answers of {len(data)} and {len(again)} bytes differ")


def _answer(store: S3Store, key: str) -> tuple[bytes, str | None]:
    answer = obstore.get(store, key)
    return answer.bytes().to_bytes(), answer.meta["e_tag"]


def _fits(data: bytes, tag: str | None) -> bool:
    """Return whether an ETag agrees with the content, or cannot say, or is too slow to ask."""
    if tag is None or len(data) > _LARGEST_MD5 or not _MD5.fullmatch(tag):
        return True
    return hashlib.md5(data, usedforsecurity=False).hexdigest() == tag.strip('"')


async def read_part(store: S3Store, key: str, part: slice, limit: int) -> Bytes:
    """Return the bytes of an object that `part` selects; what lies past its end is left out.

    Parameters
    ----------
    store, key
        From `client`.
    part : slice
        ``[a:b]``, ``[a:]`` or ``[-n:]``.
    limit : int
        Bytes; more are not fetched.

    Raises
    ------
    LimitError
        If `part` of the object is larger.
    """
    start, stop = part.start, part.stop
    if stop is not None:
        return await obstore.get_range_async(store, key, start=start, end=stop)
    options: GetOptions = {}
    if start:
        options["range"] = {"suffix": -start} if start < 0 else {"offset": start}
    answer = await obstore.get_async(store, key, options=options)
    first, last = answer.range
    if last - first > limit:
        raise LimitError(
            f"{key}: {last - first} bytes would be read; its metadata allow for {limit}"
        )
    return await answer.bytes_async()


def has(uri: str) -> bool:
    """Return whether an object exists."""
    store, key = client(uri)
    try:
        obstore.head(store, key)
    except FileNotFoundError:
        return False
    return True


def names(uri: str) -> list[str]:
    """Return the names of objects and folders directly below `uri`."""
    store, key = client(uri)
    found = obstore.list_with_delimiter(store, prefix=key or None)
    paths = [*found["common_prefixes"], *(item["path"] for item in found["objects"])]
    return [path.rpartition("/")[2] for path in paths]


def walk(uri: str) -> Iterator[tuple[str, int, str]]:
    """Yield key (relative to `uri`), size and ETag of every object below `uri`."""
    store, prefix = client(uri)
    skip = len(prefix) + 1 if prefix else 0
    for batch in obstore.list(store, prefix=prefix or None):
        for item in batch:
            yield item["path"][skip:], item["size"], str(item["e_tag"])


def put(
    uri: str, data: bytes | memoryview, *, mode: Literal["create", "overwrite"] | PutMode
) -> str | None:
    """Write an object in one request, under the condition that `mode` states; return its ETag."""
    store, key = client(uri)
    return obstore.put(store, key, data, mode=mode, use_multipart=False)["e_tag"]


def read_range(uri: str, start: int, stop: int, tag: str | None = None) -> memoryview:
    """Return bytes [start, stop) of an object, only of the version with the ETag `tag` if given."""
    store, key = client(uri)
    answer = obstore.get(store, key, options={"range": (start, stop), "if_match": tag})
    return memoryview(answer.bytes())


def head(uri: str) -> tuple[int, str | None]:
    """Return size (bytes) and ETag of an object."""
    store, key = client(uri)
    found = obstore.head(store, key)
    return found["size"], found["e_tag"]


def delete(uri: str) -> None:
    """Delete an object; one that is not there is fine."""
    store, key = client(uri)
    obstore.delete(store, key)


def copy(source: str, target: str) -> None:
    """Copy an object inside its bucket, over whatever is there; the server moves the bytes.

    Raises
    ------
    UriError
        If the two URIs are in different buckets.
    """
    store, key = client(source)
    bucket, new_key = bucket_and_key(target)
    if bucket != bucket_and_key(source)[0]:
        raise UriError(f"cannot copy {source} to {target}: a server copies inside one bucket only")
    obstore.copy(store, key, new_key)


def age_s(uri: str) -> float:
    """Return the seconds since an object was last modified, both times by the server's own clock.

    One HEAD request, signed by the same credentials as all others; obstore itself does not show
    the answer's Date. The resolution is that of HTTP's dates, 1 s.
    """
    store, key = client(uri)
    url = obstore.sign(store, "HEAD", key, timedelta(minutes=5))
    for wait_s in (0.2, 1.0, 5.0, None):
        try:
            with urlopen(Request(url, method="HEAD"), timeout=30) as answer:
                now, then = answer.headers["Date"], answer.headers["Last-Modified"]
            return (parsedate_to_datetime(now) - parsedate_to_datetime(then)).total_seconds()
        except HTTPError as error:
            error.close()
            # No word of the request: its URL holds the signature.
            if error.code == 404:
                raise FileNotFoundError(uri) from None
            if error.code in (401, 403):
                raise PermissionDeniedError(f"HTTP {error.code} {error.reason}") from None
            if wait_s is None or error.code < 500:
                raise GenericError(f"HTTP {error.code} {error.reason}") from None
        except (OSError, HTTPException) as error:
            if wait_s is None:
                raise GenericError(f"no answer ({type(error).__name__})") from None
        except (TypeError, ValueError):
            raise GenericError("the server states no Date or no Last-Modified") from None
        time.sleep(wait_s)
    raise AssertionError("the last attempt returns or raises")


def client(uri: str) -> tuple[S3Store, str]:
    """Return the client of the bucket and the key of an s3 URI.

    One client per bucket and process: its connections are kept and shared by all threads.

    Raises
    ------
    UriError
        If the URI is not in S3.
    AccessError
        If there are no credentials.
    StorageError
        In a process that was forked from one that had used S3: the client's threads do not
        survive a fork, and the first request would wait for ever.
    """
    bucket, key = bucket_and_key(uri)
    check_not_forked(uri)
    settings = tuple(sorted((k, v) for k, v in os.environ.items() if k.startswith("AWS_")))
    return _client(bucket, settings), key


def check_not_forked(uri: str) -> None:
    """Refuse to use a client that this process inherited by a fork."""
    if _forked_after_use:
        raise StorageError(
            f"cannot reach {uri}: this process was forked from one that had already used S3; "
            "start it with the 'spawn' or 'forkserver' method instead"
        )


@lru_cache(maxsize=64)
def _client(bucket: str, settings: tuple[tuple[str, str], ...]) -> S3Store:
    from obstore.store import S3Store

    environment = dict(settings)
    endpoint, region = server(environment)
    config: S3Config = {
        "virtual_hosted_style_request": False,
        "checksum_algorithm": environment.get("AWS_CHECKSUM_ALGORITHM", "SHA256"),
    }
    if endpoint:
        config["endpoint"] = endpoint
    if region:
        config["region"] = region
    options: ClientConfig = {"timeout": REQUEST_TIMEOUT, "connect_timeout": timedelta(seconds=10)}
    if (endpoint or "").startswith("http://"):
        options["allow_http"] = True
    return S3Store(
        bucket,
        config=config,
        client_options=options,
        retry_config=RETRY,
        credential_provider=provider(environment),
    )


_forked_after_use = False


def _after_fork() -> None:
    global _forked_after_use
    _forked_after_use = _forked_after_use or _client.cache_info().currsize > 0


os.register_at_fork(after_in_child=_after_fork)


def is_past_end(error: S3Error) -> bool:
    """Return whether a request was refused because the object is shorter than where it starts."""
    return "416 Range Not Satisfiable" in str(error)


def translated(error: S3Error | OSError, uri: str, verb: str) -> StorageError:
    """Return the error of `storage` that `error` means for the object `uri`."""
    # obstore's messages end in a dump of its own structures.
    reason = " ".join(str(error).partition("\n\nDebug source")[0].split())
    if "NoSuchBucket" in reason:
        return UriError(f"cannot {verb} {uri}: the bucket does not exist; create it first")
    if isinstance(error, FileNotFoundError):
        return MissingError(f"{uri} does not exist")
    if "169.254.169.254" in reason or "169.254.170.2" in reason:
        return AccessError(
            f"cannot {verb} {uri}: no credentials; set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or run where the instance has a role"
        )
    if isinstance(error, PermissionDeniedError | UnauthenticatedError) or _REFUSAL.search(reason):
        return AccessError(f"cannot {verb} {uri}: access refused ({reason})")
    if isinstance(error, S3Error) and is_past_end(error):
        return CorruptError(f"{uri} is shorter than its index says: it is truncated")
    return UnavailableError(f"cannot {verb} {uri}: {reason}")
