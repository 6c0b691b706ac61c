"""The two arrays of the recipe: images (z, y, x, uint8), and what the network makes of them."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import zarr

from storage.store import join, zarr_store

SHAPE, SHARD, CHUNK = (2, 256, 256), (1, 64, 64), (1, 32, 32)
GRID = tuple(n // s for n, s in zip(SHAPE, SHARD, strict=True))


def place(name: str) -> str:
    """Return where an array lies: in the folder that all tasks of this recipe share."""
    return join(os.environ["PETALIGN_SHARED"].rpartition("/")[0], "arrays", name)


def create(name: str, dtype: str) -> zarr.Array[Any]:
    """Create an array; doing so again is no fault."""
    return zarr.create_array(
        zarr_store(place(name), read_only=False),
        shape=SHAPE,
        shards=SHARD,
        chunks=CHUNK,
        dtype=dtype,
        dimension_names=("z", "y", "x"),
        config={"write_empty_chunks": True},
    )


def open_array(name: str, *, write: bool = False) -> zarr.Array[Any]:
    """Open an array."""
    store = zarr_store(place(name), read_only=not write)
    return zarr.open_array(store, mode="r+" if write else "r", config={"write_empty_chunks": True})


def box(shard: int) -> tuple[slice, ...]:
    """Return where a shard lies."""
    corner = np.unravel_index(shard, GRID)
    return tuple(slice(int(c) * s, (int(c) + 1) * s) for c, s in zip(corner, SHARD, strict=True))


def image(section: int) -> np.ndarray:
    """Return a made-up section: blurred noise, cut into cells by dark lines."""
    draw = np.random.default_rng(section)
    noise = draw.normal(size=SHAPE[1:])
    for axis in (0, 1):
        noise = sum(np.roll(noise, shift, axis) for shift in range(-3, 4)) / 7
    membrane = np.abs(noise) < 0.15 * noise.std()
    return np.where(membrane, 40, 160 + 30 * np.tanh(noise)).astype(np.uint8)


def save(figures: dict[str, Any]) -> None:
    """Leave figures for the record of this task."""
    Path("result.json").write_text(json.dumps(figures))
