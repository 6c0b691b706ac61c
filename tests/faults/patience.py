"""Clients that give up within a second: a sweep of a thousand faults cannot wait for minutes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from storage import s3

ATTEMPTS = 4
TIMEOUT_S = 1.5


@contextmanager
def impatient() -> Iterator[None]:
    """Let this process's S3 clients try `ATTEMPTS` times, `TIMEOUT_S` each, with short pauses."""
    retry: Any = s3.RETRY
    before, timeout = dict(retry), s3.REQUEST_TIMEOUT
    retry.update(
        max_retries=ATTEMPTS - 1,
        retry_timeout=timedelta(seconds=10),
        backoff={
            "init_backoff": timedelta(milliseconds=10),
            "max_backoff": timedelta(milliseconds=50),
            "base": 2,
        },
    )
    s3.REQUEST_TIMEOUT = timedelta(seconds=TIMEOUT_S)
    s3._client.cache_clear()
    try:
        yield
    finally:
        retry.update(before)
        s3.REQUEST_TIMEOUT = timeout
        s3._client.cache_clear()
