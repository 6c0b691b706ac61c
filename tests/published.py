"""A small aligned volume that is published as a run publishes it, without aligning anything."""

from __future__ import annotations

import numpy as np

from storage import store, volume
from storage.commit import manifest, records
from storage.grid import Box, tile
from storage.journal import journal
from storage.publish import publish

SHARD, CHUNK = (4, 64, 64), (4, 16, 16)


def texture(shape=(8, 100, 90), seed: int = 0):
    """Return uint8 noise without a 0, which would be "no data"."""
    return np.random.default_rng(seed).integers(1, 256, shape).astype(np.uint8)


def publish_aligned(
    volume_uri: str, image, key: str = "a" * 16, *, mips: int = 1, shard=SHARD, chunk=CHUNK
) -> str:
    """Write a sealed run that holds `image` and its coarser levels, publish it; return its URI."""
    run_uri = store.join(volume_uri, "runs", key)
    with journal() as noted:
        levels = volume.create_image(
            store.join(run_uri, "aligned"), shape=image.shape, chunk=chunk, shard=shard,
            resolution_nm=(40.0, 4.0, 4.0), mips=mips, name="aligned",
        )  # fmt: skip
    metadata = records.objects_of(noted.written, run_uri)
    for mip, array in enumerate(levels):
        stage, phase = ("pyramid", f"mip{mip}") if mip else ("render", "shards")
        units = list(tile(array.shape, volume.write_unit(array), mip=mip))
        for box in units:
            _write(run_uri, stage, phase, array, box, image[:, :: 2**mip, :: 2**mip])
        manifest.seal(run_uri, stage, {phase: [u.label for u in units]}, metadata)
        metadata = ()
    publish(volume_uri, key)
    return run_uri


def _write(run_uri: str, stage: str, phase: str, array, box: Box, image) -> None:
    with journal() as noted:
        volume.write(array, box, np.ascontiguousarray(image[box.slices]))
    objects = records.objects_of(noted.written, run_uri)
    records.record(run_uri, stage, phase, box.label, {}, objects=objects)
