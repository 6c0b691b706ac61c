"""The same voxels in every place and form: S3 and disk, sharded zarr 3 and precomputed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from storage import s3
from storage.grid import Box, tile
from storage.volume import create_array, write
from tests.storage import conftest as seaweed


@dataclass(frozen=True)
class Scale:
    """How large a benchmark is. `REAL` has the layout of `aligned/`, shards of 128 MiB."""

    shape: tuple[int, int, int]
    shard: tuple[int, int, int]
    chunk: tuple[int, int, int]
    patch: tuple[int, int, int]
    cutouts: int
    patches: int
    rounds: int


REAL = Scale((64, 2048, 2048), (32, 2048, 2048), (32, 128, 128), (18, 160, 160), 40, 320, 5)
TINY = Scale((16, 128, 192), (8, 128, 64), (8, 32, 32), (6, 40, 40), 4, 16, 1)


@dataclass(frozen=True)
class Site:
    """Where the volume lies."""

    scale: Scale
    folder: Path
    endpoint: str
    bucket: str
    prefix: str
    voxels: NDArray[np.uint8]

    @property
    def s3_uri(self) -> str:
        """The sharded zarr array in S3."""
        return f"s3://{self.bucket}/{self.prefix}/zarr"

    @property
    def file_uri(self) -> str:
        """The same objects as files."""
        return f"file://{self.folder}/zarr"

    @property
    def shards(self) -> list[Box]:
        """The volume in whole shards."""
        return list(tile(self.scale.shape, self.scale.shard, mip=0))

    @property
    def shard_keys(self) -> list[str]:
        """Keys of the shards below the array."""
        corners = (zip(b.start, self.scale.shard, strict=True) for b in self.shards)
        return ["0/c/" + "/".join(str(a // s) for a, s in corner) for corner in corners]

    def cutouts(self, n: int, seed: int = 0) -> list[Box]:
        """Return random boxes of the size of a patch."""
        rng = np.random.default_rng(seed)
        high = [n - p + 1 for n, p in zip(self.scale.shape, self.scale.patch, strict=True)]
        starts = [tuple(int(a) for a in rng.integers(0, high)) for _ in range(n)]
        return [
            Box(s, tuple(a + p for a, p in zip(s, self.scale.patch, strict=True)), 0)
            for s in starts
        ]


@contextmanager
def built_site(folder: Path, scale: Scale) -> Iterator[Site]:
    """Start an S3 server, write the volume in every form, and stop the server at the end."""
    with _server(folder / "seaweedfs") as endpoint:
        voxels = _em_like(scale.shape)
        site = Site(scale, folder, endpoint, seaweed.BUCKET, "bench", voxels)
        array = create_array(
            site.file_uri, "0", shape=scale.shape, chunk=scale.chunk, shard=scale.shard,
            dtype=np.uint8, fill_value=0, dimension_names=("z", "y", "x"),
        )  # fmt: skip
        for box in site.shards:
            write(array, box, voxels[box.slices])
        _write_precomputed(folder / "precomputed", scale, voxels)
        for form in ("zarr", "precomputed"):
            for file in sorted((folder / form).rglob("*")):
                if file.is_file():
                    key = file.relative_to(folder).as_posix()
                    uri = f"s3://{site.bucket}/{site.prefix}/{key}"
                    s3.put(uri, file.read_bytes(), mode="overwrite")
        yield site


def _em_like(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return grey values that compress as little as EM does: about 1.1 times."""
    rng = np.random.default_rng(0)
    voxels = np.empty(shape, np.uint8)
    for section in voxels:
        section[:] = rng.standard_normal(shape[1:], np.float32).clip(-4, 4) * 30 + 128
    return voxels


def _write_precomputed(folder: Path, scale: Scale, voxels: NDArray[np.uint8]) -> None:
    """Write the voxels as Neuroglancer precomputed: raw, one object a chunk.

    Chunks are (x, y, z) in Fortran order, which is (z, y, x) in C order.
    """
    z, y, x = scale.shape
    info = {
        "@type": "neuroglancer_multiscale_volume",
        "type": "image",
        "data_type": "uint8",
        "num_channels": 1,
        "scales": [
            {
                "key": "0",
                "size": [x, y, z],
                "resolution": [8, 8, 40],
                "voxel_offset": [0, 0, 0],
                "chunk_sizes": [list(scale.chunk[::-1])],
                "encoding": "raw",
            }
        ],
    }
    (folder / "0").mkdir(parents=True)
    (folder / "info").write_text(json.dumps(info))
    for box in tile(scale.shape, scale.chunk, mip=0):
        pairs = list(zip(box.start, box.stop, strict=True))[::-1]
        name = "_".join(f"{a}-{b}" for a, b in pairs)
        (folder / "0" / name).write_bytes(np.ascontiguousarray(voxels[box.slices]).tobytes())


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    """Run SeaweedFS on loopback, which anyone on this machine may read; set the AWS variables."""
    folder.mkdir(parents=True)
    weed = Path(sys.executable).with_name("weed")
    owner = {
        "name": "test",
        "credentials": [{"accessKey": seaweed.ACCESS_KEY, "secretKey": seaweed.SECRET_KEY}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    anyone = {"name": "anonymous", "actions": [f"Read:{seaweed.BUCKET}"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [owner, anyone]}))
    ports = seaweed._free_ports(8)
    log = folder / "weed.log"
    with log.open("wb") as stream:
        server = subprocess.Popen(
            seaweed._command(str(weed), folder, ports),
            stdout=stream, stderr=subprocess.STDOUT, cwd=folder,
        )  # fmt: skip
    endpoint = f"http://127.0.0.1:{ports[6]}"
    names = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": seaweed.ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": seaweed.SECRET_KEY,
        "AWS_REGION": "us-east-1",
    }
    before = {name: os.environ.get(name) for name in names}
    try:
        seaweed._wait_until_writable(endpoint, server, log)
        os.environ.update(names)
        yield endpoint
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        server.kill()
        server.wait()
        shutil.rmtree(folder, ignore_errors=True)
