"""The S3 server of the storage tests, for use outside pytest as well."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.storage import conftest as storage_tests

BUCKET = storage_tests.BUCKET
WEED = Path(sys.executable).with_name("weed")


@contextmanager
def s3_server() -> Iterator[str]:
    """Start a SeaweedFS server with one empty bucket, give its endpoint, and end it."""
    identity = {
        "name": "test",
        "credentials": [
            {"accessKey": storage_tests.ACCESS_KEY, "secretKey": storage_tests.SECRET_KEY}
        ],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    with tempfile.TemporaryDirectory(prefix="petalign-faults-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        ports = storage_tests._free_ports(8)
        log = folder / "weed.log"
        with log.open("wb") as stream:
            server = subprocess.Popen(
                storage_tests._command(str(WEED), folder, ports),
                stdout=stream,
                stderr=subprocess.STDOUT,
                cwd=folder,
            )
        endpoint = f"http://127.0.0.1:{ports[6]}"
        try:
            storage_tests._wait_until_writable(endpoint, server, log)
            yield endpoint
        finally:
            server.kill()
            server.wait()


def settings(endpoint: str) -> dict[str, str]:
    """Return the environment that names the server behind `endpoint`."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": storage_tests.ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": storage_tests.SECRET_KEY,
        "AWS_REGION": "us-east-1",
    }


@contextmanager
def pointed_to(endpoint: str) -> Iterator[None]:
    """Let the environment name the server behind `endpoint`."""
    before = {name: os.environ.get(name) for name in settings(endpoint)}
    os.environ.update(settings(endpoint))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value


def new_root() -> str:
    """Return the URI of an empty folder in the server's bucket."""
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"
