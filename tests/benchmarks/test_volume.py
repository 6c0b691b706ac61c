"""What checks, single writing and fsync cost: a shard through `storage.volume` and plain zarr."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from storage import store, volume
from storage.grid import Box

LAYOUTS = {
    "aligned": ((32, 1024, 1024), (32, 128, 128)),
    "section": ((1, 4096, 4096), (1, 512, 512)),
}
"""Shards of 32 MiB (a quarter of the default of `aligned/`) and of 16 MiB (one section's)."""

Make = Callable[[str], Any]


def _em_like(shape: tuple[int, ...]):
    """Return grey values that compress as little as EM does: about 1.1 times."""
    noise = np.random.default_rng(0).normal(128, 30, shape)
    return noise.clip(0, 255).astype(np.uint8)


def _makers(layout: str) -> dict[str, Make]:
    shape, chunk = LAYOUTS[layout]

    def checked(uri: str) -> Any:
        return volume.create_array(
            uri, "0", shape=shape, chunk=chunk, shard=shape, dtype=np.uint8, fill_value=0,
            dimension_names=("z", "y", "x"),
        )  # fmt: skip

    def plain(uri: str) -> Any:
        return zarr.create_array(
            f"{uri}/0", shape=shape, chunks=chunk, shards=shape, dtype="uint8", fill_value=0,
            compressors=zarr.codecs.ZstdCodec(level=1),
        )  # fmt: skip

    return {"checked": checked, "plain": plain}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("how", ["checked", "plain"])
def test_write_shard(benchmark, tmp_path: Path, layout: str, how: str):
    """One shard; a section of 92,000 x 187,000 px has 1,058, an aligned mm3 some millions."""
    data = _em_like(LAYOUTS[layout][0])
    make, serial = _makers(layout)[how], itertools.count()

    def fresh() -> tuple[tuple[Any], dict[str, Any]]:
        return (make(str(tmp_path / str(next(serial)))),), {}

    def write(array: Any) -> None:
        if how == "checked":
            volume.write(array, Box((0, 0, 0), data.shape, mip=0), data)
        else:
            array[:] = data

    benchmark.group = f"write {layout}"
    benchmark.extra_info["MB"] = data.nbytes / 1e6
    benchmark.pedantic(write, setup=fresh, rounds=5)
    shard = tmp_path / "0/0/c/0/0/0"
    assert data.nbytes * 0.7 < shard.stat().st_size < data.nbytes * 1.05


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("part", ["shard", "cutout"])
@pytest.mark.parametrize("how", ["checked", "plain"])
def test_read(benchmark, tmp_path: Path, layout: str, part: str, how: str):
    """A whole shard, and a cutout of 200 x 200 px that meets four chunks or fewer."""
    data = _em_like(LAYOUTS[layout][0])
    array = _makers(layout)[how](str(tmp_path))
    array_box = Box((0, 0, 0), data.shape, mip=0)
    if how == "checked":
        volume.write(array, array_box, data)
    else:
        array[:] = data
    box = array_box if part == "shard" else Box((0, 100, 100), (data.shape[0], 300, 300), mip=0)

    def read() -> Any:
        return volume.read(array, box) if how == "checked" else array[box.slices]

    benchmark.group = f"read {part} of {layout}"
    np.testing.assert_array_equal(benchmark(read), data[box.slices])


def test_record(benchmark, tmp_path: Path):
    """One record of a finished unit, durable; as many as there are units."""
    serial = itertools.count()

    def record() -> None:
        uri = f"{tmp_path}/commits/render/mip0/{next(serial)}.json"
        store.create_json(uri, {"sha256": "0" * 64})

    benchmark(record)
    assert len(store.list_names(f"{tmp_path}/commits/render/mip0")) == next(serial)
