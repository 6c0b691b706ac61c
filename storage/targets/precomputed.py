"""Neuroglancer precomputed volumes, written object by object through the project's own store.

Chunks are raw, one object each, named by the voxels that they hold: EM compresses by a few per
cent, and what is not compressed reads the same from every server. All of them are written, black
ones too, so that a missing object is an error for readers who want to know. Objects are created
once; ``info`` comes last, and without it there is no volume.

In this format coordinates are edges of voxels, not centres: voxel i of level k covers
``[i, i + 1) * resolution``, which puts the levels exactly on each other without an offset.

Specification: https://github.com/google/neuroglancer, src/datasource/precomputed/volume.md
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from storage import store
from storage.errors import MismatchError
from storage.grid import ZYX, Box, tile
from storage.targets.blocks import Tell, each
from storage.targets.origin import Level, Origin, claim
from storage.volume import read

CHUNK = (16, 256, 256)
"""(z, y, x) of a chunk: 1 MiB, what a viewer fetches at once."""

_BLOCK = (32, 1024, 1024)  # read at once: 32 MiB


def export_precomputed(
    origin: Origin,
    dest: str,
    *,
    mips: tuple[int, ...] | None = None,
    workers: int = 4,
    tell: Tell | None = None,
) -> int:
    """Write levels of a volume to `dest`, on file:// or s3://; return the number of chunks.

    Parameters
    ----------
    mips : tuple of int, optional
        Levels to write; all by default.

    Raises
    ------
    ConflictError
        If `dest` holds something else.
    MissingError, CorruptError
        If voxels of the volume are missing or damaged.
    """
    uri = store.normalise_uri(dest)
    wanted = tuple(range(origin.mips)) if mips is None else tuple(sorted(set(mips)))
    if not wanted:
        raise MismatchError("expected at least one mip to export")
    levels = [origin.level(mip) for mip in wanted]
    about = {"format": "petalign export 1", "to": "precomputed", "from": origin.about}
    claim(uri, {**about, "mips": list(wanted), "chunk": list(CHUNK)})
    n = sum(_write_level(store.join(uri, _key(level)), level, workers, tell) for level in levels)
    store.create_json(store.join(uri, "provenance"), _provenance(origin))
    store.create_json(store.join(uri, "info"), _info(levels))
    return n


def _write_level(uri: str, level: Level, workers: int, tell: Tell | None) -> int:
    """Write what is not there yet; objects appear whole, so one of the right size is done."""
    shape = level.array.shape
    there = {key: size for key, size, _ in store.walk(uri)}
    blocks = list(tile(shape, _BLOCK, mip=level.mip))

    def write(block: Box) -> None:
        todo = [c for c in _chunks(block) if there.get(_name(c)) != int(np.prod(c.shape))]
        if not todo:
            return
        voxels = read(level.array, block)
        for chunk in todo:
            part = tuple(
                slice(a - origin, b - origin)
                for a, b, origin in zip(chunk.start, chunk.stop, block.start, strict=True)
            )
            # x runs fastest: C order of (z, y, x).
            data = np.ascontiguousarray(voxels[part], dtype=np.uint8)
            store.create_bytes(store.join(uri, _name(chunk)), data.tobytes())

    each(write, blocks, total=len(blocks), step=f"mip {level.mip}", workers=workers, tell=tell)
    return int(np.prod([-(-n // c) for n, c in zip(shape, CHUNK, strict=True)]))


def _chunks(block: Box) -> Iterator[Box]:
    for part in tile(block.shape, CHUNK, mip=block.mip):
        start, stop = (
            tuple(a + b for a, b in zip(corner, block.start, strict=True))
            for corner in (part.start, part.stop)
        )
        yield Box(start, stop, block.mip)


def _name(chunk: Box) -> str:
    """Return the name of a chunk's object, x first.

    >>> _name(Box((0, 256, 512), (16, 300, 768), 0))
    '512-768_256-300_0-16'
    """
    spans = (f"{a}-{b}" for a, b in zip(chunk.start, chunk.stop, strict=True))
    return "_".join(reversed(list(spans)))


def _key(level: Level) -> str:
    return "_".join(f"{nm:.12g}" for nm in reversed(level.resolution_nm))


def _info(levels: list[Level]) -> dict[str, Any]:
    return {
        "@type": "neuroglancer_multiscale_volume",
        "type": "image",
        "data_type": "uint8",
        "num_channels": 1,
        "scales": [
            {
                "key": _key(level),
                "size": _xyz(level.array.shape),
                "resolution": [_plain(nm) for nm in reversed(level.resolution_nm)],
                "voxel_offset": [0, 0, 0],
                "chunk_sizes": [_xyz(CHUNK)],
                "encoding": "raw",
            }
            for level in levels
        ],
    }


def _provenance(origin: Origin) -> dict[str, Any]:
    """Return what CloudVolume keeps in an object of this name."""
    return {
        "description": "aligned by petalign",
        "owners": [],
        "processing": [{"method": {"task": "petalign export", **origin.about}, "by": "petalign"}],
        "sources": [],
    }


def _xyz(zyx: ZYX) -> list[int]:
    return [int(n) for n in reversed(zyx)]


def _plain(value: float) -> int | float:
    return int(value) if value == int(value) else value
