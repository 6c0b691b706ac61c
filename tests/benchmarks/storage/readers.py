"""The ways to read a volume that are compared: ours, and those of others, with their defaults."""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import obstore
import zarr
from numpy.typing import NDArray
from obstore.store import LocalStore as ObstoreLocal
from obstore.store import S3Store
from zarr.storage import FsspecStore, LocalStore, ObjectStore

from storage.grid import Box
from storage.volume import open_array, read
from tests.benchmarks.storage.site import Site
from tests.storage import conftest as seaweed

Read = Callable[[Box], NDArray[np.uint8]]

BARE = "zarr over bare obstore"
OURS = "petalign, every check on"


def from_s3(site: Site) -> dict[str, Read]:
    """Return the ways to read boxes from S3, the baseline first."""
    bucket = _bucket(site)
    path = f"{site.prefix}/zarr/0"
    ways: dict[str, Read] = {
        BARE: _zarr(zarr.open_array(ObjectStore(bucket, read_only=True), path=path, mode="r")),
        OURS: _ours(site.s3_uri),
    }
    s3fs = _s3fs_store(site, path)
    if s3fs is not None:
        ways["zarr over fsspec (s3fs)"] = _zarr(zarr.open_array(s3fs, mode="r"))
    spec = {"driver": "s3", "bucket": site.bucket, "endpoint": site.endpoint,
            "aws_region": "us-east-1", "path": path}  # fmt: skip
    return (
        ways
        | _tensorstore(spec)
        | _cloud_volume(f"{site.endpoint}/{site.bucket}/{site.prefix}/precomputed")
    )


def from_disk(site: Site) -> dict[str, Read]:
    """Return the ways to read boxes from files, the baseline first."""
    folder = site.folder / "zarr" / "0"
    obstore_files = ObjectStore(ObstoreLocal(str(folder)), read_only=True)
    fsspec_files = FsspecStore.from_url(f"file://{folder}", read_only=True)
    return (
        {
            BARE: _zarr(zarr.open_array(obstore_files, mode="r")),
            OURS: _ours(site.file_uri),
            "zarr over its LocalStore": _zarr(
                zarr.open_array(LocalStore(folder, read_only=True), mode="r")
            ),
            "zarr over fsspec": _zarr(zarr.open_array(fsspec_files, mode="r")),
        }
        | _tensorstore({"driver": "file", "path": str(folder)})
        | _cloud_volume(f"file://{site.folder}/precomputed")
    )


def raw_get(site: Site, key: str) -> memoryview:
    """Return an object as the server sends it: the least that any reader must do."""
    return memoryview(obstore.get(_bucket(site), f"{site.prefix}/zarr/{key}").bytes())


def _bucket(site: Site) -> S3Store:
    return S3Store(
        site.bucket,
        endpoint=site.endpoint,
        region="us-east-1",
        access_key_id=seaweed.ACCESS_KEY,
        secret_access_key=seaweed.SECRET_KEY,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )


def _zarr(array: Any) -> Read:
    return lambda box: np.asarray(array[box.slices])


def _ours(uri: str) -> Read:
    array = open_array(uri, "0")
    return lambda box: read(array, box)


def _s3fs_store(site: Site, path: str) -> FsspecStore | None:
    """Return zarr's store over s3fs if it is installed, or lies in the folder S3FS.

    s3fs pins botocore to another version than boto3 does, so it is not in our lock::

        uv pip install --target /tmp/s3fs s3fs
        S3FS=/tmp/s3fs make bench-storage
    """
    folder = os.environ.get("S3FS")
    if folder and folder not in sys.path:
        sys.path.append(folder)
    if importlib.util.find_spec("s3fs") is None:
        return None
    options = {
        "key": seaweed.ACCESS_KEY,
        "secret": seaweed.SECRET_KEY,
        "client_kwargs": {"endpoint_url": site.endpoint, "region_name": "us-east-1"},
    }
    return FsspecStore.from_url(
        f"s3://{site.bucket}/{path}", storage_options=options, read_only=True
    )


def _tensorstore(kvstore: dict[str, Any]) -> dict[str, Read]:
    if importlib.util.find_spec("tensorstore") is None:
        return {}
    import tensorstore

    array = tensorstore.open({"driver": "zarr3", "kvstore": kvstore}, read=True).result()
    return {"tensorstore": lambda box: array[box.slices].read().result()}


def _cloud_volume(url: str) -> dict[str, Read]:
    if importlib.util.find_spec("cloudvolume") is None:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from cloudvolume import CloudVolume

        volume = CloudVolume(
            f"precomputed://{url}", progress=False, cache=False, fill_missing=False
        )

    def read_box(box: Box) -> NDArray[np.uint8]:
        (z0, y0, x0), (z1, y1, x1) = box.start, box.stop
        return np.asarray(volume[x0:x1, y0:y1, z0:z1])[..., 0].T

    return {"cloud-volume (precomputed, raw)": read_box}
