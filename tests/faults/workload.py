"""The run that things happen to: two real stages over two small sections, in one process.

`ours` is the pipeline's own `ingest` and `masks`; `plain` computes the same voxels with zarr and
dask as they come.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import dask
import dask.array
import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray
from zarr.storage import LocalStore, ObjectStore

from alignment.blockwise import Outcome
from alignment.config import MasksConfig
from alignment.driving import progress
from alignment.masks import estimate_valid
from alignment.phantom import Phantom, PhantomConfig
from alignment.pyramid import downsample
from alignment.runs import prepare
from alignment.stages import ingest, inputs, masks, run_stage, runner
from storage import s3, store
from storage.sections import open_source, read_section
from storage.sources import tiff
from storage.uri import bucket_and_key, local_path
from storage.volume import open_array

SECTIONS, SIDE_PX = 2, 128
STAGES = ("ingest", "masks")
_LEVEL = {"mip": 1, "template_px": 16, "search_radius_px": 4, "node_spacing_px": 8}
CONFIG: dict[str, Any] = {
    "volume": {"section_shard_px": 128, "section_chunk_px": 64},
    "masks": {"mip": 1},
    "coarse": {"mip": 1},
    "match": {"levels": [_LEVEL], "refine": [_LEVEL]},
}
ARRAYS = ("sections/0", "sections/1", "valid", "defects")

PRELOADED = (ingest, masks, tiff, tifffile)
"""Imported by name when they are needed: not in every child again."""

Work = Callable[[str, str], None]
"""Called with the source and an empty folder; raises if it fails."""


def write_source(path: Path) -> str:
    """Write the sections as a TIFF, which nothing happens to, and return its path."""
    config = PhantomConfig(
        sections=SECTIONS, height=SIDE_PX, width=SIDE_PX, seed=3, shift_px=4.0, rotation_deg=1.0,
        corner_section=0, blank_section=1,
    )  # fmt: skip
    phantom = Phantom(config)
    with tifffile.TiffWriter(path) as pages:
        for z in range(SECTIONS):
            pages.write(phantom.section(z), contiguous=False)
    return str(path)


def ours(source: str, root: str) -> None:
    """Do the stages that are not done yet of the run below `root`."""
    runner.run_blocks = one_after_the_other  # a cluster would take longer than the run
    progress.HEARTBEAT_S = 3600.0
    run_uri = prepare(source, root, CONFIG)
    for stage in STAGES:
        run_stage(stage, run_uri, None)  # type: ignore[arg-type]


def one_after_the_other(
    work: Callable[[Any], Any], blocks: Iterable[Any], _client: object
) -> Iterator[Outcome[Any, Any]]:
    """Do what `alignment.blockwise.run_blocks` does, in this thread."""
    for block in blocks:
        try:
            yield Outcome(block, value=work(block))
        except Exception as error:
            yield Outcome(block, error=error)


def run_uri_of(root: str) -> str:
    """Return the URI of the one run below `root`."""
    (key,) = store.list_names(store.join(root, "runs"))
    return store.join(root, "runs", key)


def our_voxels(root: str) -> dict[str, NDArray[Any]]:
    """Read every array of the run, as a user would."""
    run_uri = run_uri_of(root)
    return {path: inputs.read_all(open_array(run_uri, path)) for path in ARRAYS}


def plain(source: str, root: str) -> None:
    """Compute the same arrays with zarr's and dask's defaults, from the start."""
    opened = open_source(source)
    images = np.stack([read_section(opened, z) for z in range(SECTIONS)])
    below, prefix = _plain_store(root, read_only=False)
    config = MasksConfig(**CONFIG["masks"])
    chunk = (1, SIDE_PX, SIDE_PX)

    def create(path: str, side: int) -> zarr.Array[Any]:
        return zarr.create_array(
            below, name=prefix + path, shape=(SECTIONS, side, side), chunks=(1, side, side),
            dtype="uint8", overwrite=True,
        )  # fmt: skip

    def masked(image: NDArray[np.uint8], part: int) -> NDArray[np.uint8]:
        return estimate_valid(image[0], config)[part].astype(np.uint8)[np.newaxis]

    level = dask.array.from_array(images, chunks=chunk)
    with dask.config.set(scheduler="synchronous"):
        dask.array.store(level, create("sections/0", SIDE_PX), lock=False)
        fine = dask.array.from_zarr(zarr.open_array(below, path=prefix + "sections/0", mode="r"))
        half = fine.map_blocks(downsample, dtype="uint8", chunks=(1, SIDE_PX // 2, SIDE_PX // 2))
        dask.array.store(half, create("sections/1", SIDE_PX // 2), lock=False)
        coarse = dask.array.from_zarr(zarr.open_array(below, path=prefix + "sections/1", mode="r"))
        for part, path in enumerate(("valid", "defects")):
            made = coarse.map_blocks(masked, part=part, dtype="uint8")
            dask.array.store(made, create(path, SIDE_PX // 2), lock=False)


def plain_voxels(root: str) -> dict[str, NDArray[Any]]:
    """Read every array of the plain stack."""
    below, prefix = _plain_store(root, read_only=True)
    found: dict[str, NDArray[Any]] = {}
    with dask.config.set(scheduler="synchronous"):
        for path in ARRAYS:
            array = zarr.open_array(below, path=prefix + path, mode="r")
            found[path] = dask.array.from_zarr(array).compute()
    return found


def _plain_store(root: str, *, read_only: bool) -> tuple[Any, str]:
    """Return the store that zarr documents for where `root` lies, and the prefix of its names."""
    path = local_path(root)
    if path is not None:
        return LocalStore(path, read_only=read_only), ""
    from obstore.store import S3Store

    bucket, prefix = bucket_and_key(root)
    options: Any = {"allow_http": True, "timeout": s3.REQUEST_TIMEOUT}
    client = S3Store(bucket, client_options=options, retry_config=s3.RETRY)
    return ObjectStore(client, read_only=read_only), f"{prefix}/"
