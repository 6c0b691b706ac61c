"""Stitch the tiles of every section; write the sections as an OME-Zarr 0.5 volume.

What is written below the target, in this order; each object once, so that a stitch that was stopped
goes on where it was:

- ``montage.json``: what is stitched, and how; another montage or other settings are refused;
- ``positions/<z>.json``: where the tiles of a section lie, and what every overlap said;
- the arrays ``0``, ``1``, ...: the sections and their pyramid, shard by shard;
- ``drawn/<z>.json``: the section is complete at all levels;
- ``positions.json``: a summary of all sections;
- ``zarr.json``: the group. Before it exists, the target is no volume, and nothing reads it as one.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from alignment.config import VolumeConfig
from alignment.montage import MontageConfig
from alignment.pyramid import downsample
from alignment.runs import DEFAULT_RESOLUTION_NM, pyramid_levels
from alignment.stages.stitched import Stitched
from alignment.stages.tiles import Record, solve, summarise
from storage.errors import ConflictError
from storage.grid import ZYX, Box, tile
from storage.ome import AXES, group_document, level_shape, ome_attributes
from storage.provenance import code_version
from storage.sources.montage import Montage, has_montage, open_montage, open_strip
from storage.store import (
    create_json,
    exists,
    join,
    list_names,
    normalise_uri,
    read_json,
)
from storage.volume import Array, create_array, read, write, write_unit

Tell = Callable[[str, int, int], None]
"""Called with the step ("match", "draw"), the sections done and in total."""


@dataclass(frozen=True)
class Stitch:
    """What was stitched."""

    uri: str
    shape: ZYX
    tiles: int
    loose: int
    """Tiles that no overlap holds: they lie where the stage says."""
    unreadable: int
    rejected: int
    """Overlaps that contradict the others."""
    residual_px: float | None
    """Median over the overlaps that were used."""


def is_montage(source: str) -> bool:
    """Return whether a source is a folder of tiles with positions."""
    return has_montage(list_names(normalise_uri(source)))


def stitched_uri(volume: str) -> str:
    """Return where `petalign align` puts the sections of a montage that it aligns.

    >>> stitched_uri("s3://petalign/out.zarr")
    's3://petalign/out.stitched.zarr'
    """
    return normalise_uri(volume).removesuffix(".zarr") + ".stitched.zarr"


def sections_of(source: str, volume: str, *, tell: Tell | None = None) -> str:
    """Return what to align: `source` itself, or the sections stitched from it if it is a montage.

    They are kept at `stitched_uri`, so that aligning again does not stitch again.
    """
    if not is_montage(source):
        return source
    return stitch(source, stitched_uri(volume), tell=tell).uri


def stitch(
    source: str,
    target: str,
    *,
    config: MontageConfig | None = None,
    resolution_nm: tuple[float, float, float] | None = None,
    workers: int | None = None,
    tell: Tell | None = None,
) -> Stitch:
    """Stitch a folder of tiles with positions, or a strip of images without, into `target`.

    Raises
    ------
    SourceError
        If the positions, or all tiles of a section, cannot be read.
    DataError
        If a strip without positions does not hold together.
    ConflictError
        If `target` holds something else.
    """
    config = config or MontageConfig()
    workers = workers or os.cpu_count() or 1
    tell = tell or (lambda step, done, total: None)
    montage = open_montage(source) if is_montage(source) else open_strip(source)
    uri = normalise_uri(target)
    resolution = resolution_nm or DEFAULT_RESOLUTION_NM
    _claim(uri, montage, config, resolution)
    n = len(montage.sections)
    records = []
    for z in range(n):
        records.append(_solved(uri, montage, z, config, workers))
        tell("match", z + 1, n)
    stitched = Stitched(montage, records)
    arrays = _create_arrays(uri, stitched.shape)
    for z in range(n):
        _draw(uri, stitched, arrays, z, workers)
        tell("draw", z + 1, n)
    summary = summarise(records)
    create_json(join(uri, "positions.json"), summary)
    attributes = ome_attributes(
        name=uri.rpartition("/")[2], resolution_nm=resolution, mips=len(arrays)
    )
    create_json(join(uri, "zarr.json"), group_document(attributes))
    total = summary["total"]
    return Stitch(
        uri,
        stitched.shape,
        total["tiles"],
        total["loose"],
        total["unreadable"],
        total["rejected"],
        total["residual_px"],
    )


def _claim(
    uri: str, montage: Montage, config: MontageConfig, resolution: tuple[float, float, float]
) -> None:
    """Refuse a target that holds anything but the beginning of this stitch."""
    about = {
        "format": "petalign montage 1",
        "source": montage.describe(),
        "settings": config.model_dump(mode="json"),
        "resolution_nm": list(resolution),
        "code": code_version(),
    }
    if not exists(join(uri, "montage.json")) and (names := list_names(uri)):
        raise ConflictError(
            f"{uri} exists and holds {', '.join(names[:5])}; expected nothing, or a stitch that "
            "was begun. Give another name"
        )
    try:
        create_json(join(uri, "montage.json"), about)
    except ConflictError:
        found = read_json(join(uri, "montage.json"))
        differing = sorted(k for k in about if found.get(k) != about[k])
        raise ConflictError(
            f"{uri} holds a stitch of another {' and '.join(differing)}. Give another name, or "
            "delete it"
        ) from None


def _solved(uri: str, montage: Montage, z: int, config: MontageConfig, workers: int) -> Record:
    place = join(uri, f"positions/{z:06d}.json")
    if not exists(place):
        create_json(place, solve(montage, z, config, workers=workers))
    return dict(read_json(place))


def _create_arrays(uri: str, shape: ZYX) -> list[Array]:
    layout = VolumeConfig()
    return [
        create_array(
            uri,
            str(mip),
            shape=level_shape(shape, mip),
            chunk=(1, layout.section_chunk_px, layout.section_chunk_px),
            shard=(1, layout.section_shard_px, layout.section_shard_px),
            dtype="uint8",
            fill_value=0,
            dimension_names=AXES,
        )
        for mip in range(pyramid_levels(shape))
    ]


def _draw(uri: str, stitched: Stitched, arrays: list[Array], z: int, workers: int) -> None:
    """Write a section at every level, a shard at a time, unless it is there."""
    marker = join(uri, f"drawn/{z:06d}.json")
    if exists(marker):
        return
    digests = []
    with ThreadPoolExecutor(workers) as pool:
        for mip, array in enumerate(arrays):
            finer = arrays[mip - 1] if mip else None

            def draw(box: Box, array: Array = array, finer: Array | None = finer) -> str:
                return write(array, box, _voxels(stitched, finer, box))

            digests.append(list(pool.map(draw, _shards(array, z, mip))))
    create_json(marker, {"z": z, "sha256": digests})


def _voxels(stitched: Stitched, finer: Array | None, box: Box) -> Any:
    if finer is None:
        return stitched.read_box(box)[None]
    return downsample(read(finer, box.finer()))


def _shards(array: Array, z: int, mip: int) -> list[Box]:
    _, ny, nx = array.shape
    boxes = tile((1, ny, nx), (1, *write_unit(array)[1:]), mip=mip)
    return [Box((z, *b.start[1:]), (z + 1, *b.stop[1:]), mip) for b in boxes]
