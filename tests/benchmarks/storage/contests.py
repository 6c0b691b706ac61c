"""What is compared: streaming, cutouts, cached re-reads, training input."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from alignment.training_input import training_input
from inference.patches import PatchOrder
from storage.cache import BlockCache, open_cache
from storage.cache.arrays import cached
from storage.cache.origin import origin
from storage.grid import Box
from storage.volume import open_array, read
from tests.benchmarks.rounds import Contest
from tests.benchmarks.storage import readers
from tests.benchmarks.storage.readers import Read
from tests.benchmarks.storage.site import Site

BATCH = 8


def streaming_s3(site: Site) -> Contest:
    """The whole volume, shard after shard, from the S3 server."""
    ways = _whole(site, readers.from_s3(site))
    ways["raw GET, nothing decoded"] = lambda: [
        readers.raw_get(site, key) for key in site.shard_keys
    ]
    return Contest("Streaming whole shards from S3", site.voxels.nbytes, ways)


def streaming_disk(site: Site) -> Contest:
    """The whole volume, shard after shard, from files."""
    ways = _whole(site, readers.from_disk(site))
    ways["plain file read, nothing decoded"] = lambda: [
        (site.folder / "zarr" / key).read_bytes() for key in site.shard_keys
    ]
    return Contest("Streaming whole shards from disk", site.voxels.nbytes, ways)


def cutouts_s3(site: Site) -> Contest:
    """Random boxes of the size of a training patch, from the S3 server."""
    boxes = site.cutouts(site.scale.cutouts)
    title = "Random cutouts of 160 x 160 x 18 from S3"
    return Contest(title, _bytes(boxes), _each(boxes, readers.from_s3(site)))


def cutouts_disk(site: Site) -> Contest:
    """Random boxes of the size of a training patch, from files."""
    boxes = site.cutouts(site.scale.cutouts)
    title = "Random cutouts of 160 x 160 x 18 from disk"
    return Contest(title, _bytes(boxes), _each(boxes, readers.from_disk(site)))


def cached_voxels(site: Site) -> Contest:
    """Boxes of a volume in S3 that were read before, against the same volume in local files."""
    cache = warm_cache(site)
    local = open_array(site.file_uri, "0")
    remote = cached(open_array(site.s3_uri, "0"), cache)
    boxes = site.cutouts(2 * site.scale.cutouts)
    ways = _each(
        boxes,
        {
            "local files, same reader": lambda box: read(local, box),
            "cached copy of S3": lambda box: read(remote, box),
        },
    )
    return Contest("Cached re-read, cutouts (voxels)", _bytes(boxes), ways)


def cached_shards(site: Site) -> Contest:
    """Whole shards, as above."""
    cache = warm_cache(site)
    local = open_array(site.file_uri, "0")
    remote = cached(open_array(site.s3_uri, "0"), cache)
    ways = _whole(
        site,
        {
            "local files, same reader": lambda box: read(local, box),
            "cached copy of S3": lambda box: read(remote, box),
        },
    )
    return Contest("Cached re-read, whole shards (voxels)", site.voxels.nbytes, ways)


def cached_bytes(site: Site) -> Contest:
    """The shards' bytes as they are, nothing decoded: what the cache itself costs."""
    cache = warm_cache(site)
    files = [site.folder / "zarr" / key for key in site.shard_keys]
    sources = [origin(f"{site.s3_uri}/{key}") for key in site.shard_keys]

    def from_cache() -> None:
        for source in sources:
            cache.get(source, max_age_s=None)

    def from_files() -> None:
        for file in files:
            file.read_bytes()

    size = sum(file.stat().st_size for file in files)
    ways: dict[str, Callable[[], object]] = {
        "plain file read": from_files,
        "cache, every byte checked": from_cache,
    }
    return Contest("Cached re-read, whole objects (bytes)", size, ways)


def block_sizes(site: Site) -> Contest:
    """Cutouts through an empty cache with blocks of several sizes: few requests or few bytes."""
    boxes = site.cutouts(site.scale.cutouts)
    folder = site.folder / "sizes"
    remote = open_array(site.s3_uri, "0")

    def through(kib: int) -> Callable[[], object]:
        def run() -> None:
            cache = BlockCache(folder / str(kib), max(8 * site.voxels.nbytes, 2**28), kib * 2**10)
            array = cached(remote, cache)
            for box in boxes:
                read(array, box)

        return run

    def emptied(kib: int) -> Callable[[], object]:
        return lambda: shutil.rmtree(folder / str(kib), ignore_errors=True)

    names = {f"blocks of {kib} KiB": kib for kib in (1024, 128, 256, 512, 2048, 4096)}
    return Contest(
        "Block size of the cache: cutouts from S3, empty cache",
        _bytes(boxes),
        {name: through(kib) for name, kib in names.items()},
        {name: emptied(kib) for name, kib in names.items()},
    )


def training(site: Site) -> Contest:
    """tf.data batches of random patches: from files, and from S3 with a warm and an empty cache."""
    scale = site.scale
    order = PatchOrder(scale.shape, patch=scale.patch, seed=1)
    steps = scale.patches // BATCH
    folder = site.folder / "training-cache"

    def run(uri: str, cache: Callable[[], BlockCache | None]) -> Callable[[], object]:
        def epoch() -> None:
            array = open_array(uri, "0")
            with training_input(array, order, batch=BATCH, cache=cache()) as batches:
                for _ in islice(batches.as_numpy_iterator(), steps):
                    pass

        return epoch

    warm = warm_cache(site)
    ways = {
        "local files": run(site.file_uri, lambda: None),
        "S3, warm cache": run(site.s3_uri, lambda: warm),
        "S3, empty cache, prefetch": run(site.s3_uri, lambda: _empty(folder, site)),
        "S3, no cache": run(site.s3_uri, lambda: None),
    }
    before = {"S3, empty cache, prefetch": lambda: shutil.rmtree(folder, ignore_errors=True)}
    patch_bytes = int(np.prod(scale.patch))
    coverage = scale.patches * patch_bytes / site.voxels.nbytes
    title = (
        f"Training input: {scale.patches} random patches, batches of {BATCH}; "
        f"they hold {coverage:.2f} times the volume's voxels"
    )
    return Contest(title, scale.patches * patch_bytes, ways, before)


CONTESTS: tuple[Callable[[Site], Contest], ...] = (
    streaming_s3, streaming_disk, cutouts_s3, cutouts_disk,
    cached_bytes, cached_shards, cached_voxels, block_sizes, training,
)  # fmt: skip


def warm_cache(site: Site) -> BlockCache:
    """Return a cache that holds the whole volume."""
    cache = open_cache(str(site.folder / "cache"), max(4 * site.voxels.nbytes, 2**28))
    for key in site.shard_keys:
        cache.get(origin(f"{site.s3_uri}/{key}"), max_age_s=None)
    return cache


def _empty(folder: Path, site: Site) -> BlockCache:
    return BlockCache(folder, max(4 * site.voxels.nbytes, 2**28))


def _bytes(boxes: list[Box]) -> int:
    return sum(int(np.prod(box.shape)) for box in boxes)


def _whole(site: Site, ways: dict[str, Read]) -> dict[str, Callable[[], object]]:
    return _each(site.shards, ways)


def _each(boxes: list[Box], ways: dict[str, Read]) -> dict[str, Callable[[], object]]:
    def all_of(way: Read) -> Callable[[], Any]:
        def run() -> None:
            for box in boxes:
                way(box)

        return run

    return {name: all_of(way) for name, way in ways.items()}
