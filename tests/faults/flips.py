"""Damage in stored shards: flipped bits and truncations, in shards of many layouts."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from storage import volume
from storage.commit.records import StoredObject, objects_of
from storage.commit.verify import check_object
from storage.errors import CorruptError, MissingError
from storage.journal import journal, mending
from storage.store import join
from tests.faults.disk_sweep import FOLDER

Layout = tuple[str, tuple[int, ...], tuple[int, ...], tuple[int, ...] | None]

LAYOUTS: tuple[Layout, ...] = (
    ("uint8", (1, 256, 256), (1, 64, 64), (1, 256, 256)),
    ("uint8", (8, 64, 64), (8, 16, 16), (8, 64, 64)),
    ("uint8", (3, 100, 70), (2, 16, 16), (4, 112, 80)),
    ("uint8", (1, 128, 128), (1, 128, 128), None),
    ("uint16", (4, 48, 48), (2, 24, 24), (4, 48, 48)),
    ("float16", (1, 80, 80), (1, 20, 40), (1, 80, 80)),
    ("float32", (1, 2, 40, 40), (1, 2, 10, 10), (1, 2, 40, 40)),
    ("float64", (16, 2, 3), (4, 2, 3), (16, 2, 3)),
    ("float32", (1, 4, 32, 32), (1, 4, 32, 32), None),
)
"""dtype, shape, chunk and shard of one object; the third reaches over its array's edge."""


@dataclass(frozen=True)
class Shard:
    """One stored object of an array of a run."""

    run_uri: str
    array: volume.Array
    stored: StoredObject
    path: Path
    good: bytes
    voxels: NDArray[Any]

    @property
    def region(self) -> tuple[slice, ...]:
        """All of the array."""
        return tuple(slice(0, n) for n in self.voxels.shape)

    def mend(self) -> None:
        """Compute it again, as a repair does."""
        uri = join(self.run_uri, self.stored.path)
        with mending({uri: self.stored.blake3}):
            volume.write_region(self.array, self.region, self.voxels)


def voxels(layout: Layout, random: np.random.Generator) -> NDArray[Any]:
    """Return data like that of an EM section: noise around grey, and a black corner."""
    dtype, shape, _, _ = layout
    data = random.normal(128, 30, shape).clip(0, 255)
    data[..., : shape[-1] // 4] = 0
    return data.astype(dtype)


@contextmanager
def shards() -> Iterator[list[Shard]]:
    """Write one shard of each layout."""
    folder = Path(tempfile.mkdtemp(prefix="petalign-flips-", dir=FOLDER))
    random = np.random.default_rng(0)
    try:
        yield [_shard(folder, i, layout, random) for i, layout in enumerate(LAYOUTS)]
    finally:
        shutil.rmtree(folder)


def _shard(folder: Path, number: int, layout: Layout, random: np.random.Generator) -> Shard:
    dtype, shape, chunk, shard = layout
    run_uri, name = folder.as_uri(), f"array-{number}"
    array = volume.create_array(
        run_uri, name, shape=shape, chunk=chunk, shard=shard, dtype=dtype, fill_value=0,
        dimension_names=tuple("abcd"[: len(shape)]),
    )  # fmt: skip
    data = voxels(layout, random)
    with journal() as noted:
        volume.write_region(array, tuple(slice(0, n) for n in shape), data)
    (stored,) = objects_of(noted.written, run_uri)
    path = folder / stored.path
    return Shard(run_uri, array, stored, path, path.read_bytes(), data)


def damage(good: bytes, random: np.random.Generator) -> tuple[str, bytes]:
    """Return a kind of damage and what it leaves: two of three times a flipped bit."""
    if random.integers(3):
        bad = bytearray(good)
        bad[random.integers(len(bad))] ^= 1 << int(random.integers(8))
        return "flipped bit", bytes(bad)
    return "truncation", good[: random.integers(len(good))]


@dataclass
class Tally:
    """How many damages there were, and what noticed or mended each."""

    tried: Counter[str]
    read: Counter[str]
    verify: Counter[str]
    quick: Counter[str]
    mended: Counter[str]


def count(n: int, seed: int) -> Tally:
    """Damage shards `n` times; read them, check them, mend them."""
    random = np.random.default_rng(seed)
    tally = Tally(Counter(), Counter(), Counter(), Counter(), Counter())
    with shards() as all_shards:
        for i in range(n):
            shard = all_shards[i % len(all_shards)]
            kind, bad = damage(shard.good, random)
            shard.path.write_bytes(bad)
            tally.tried[kind] += 1
            try:
                volume.read_region(shard.array, shard.region)
            except (CorruptError, MissingError):
                tally.read[kind] += 1
            tally.verify[kind] += check_object(shard.run_uri, shard.stored, full=True) is not None
            tally.quick[kind] += check_object(shard.run_uri, shard.stored, full=False) is not None
            shard.mend()
            tally.mended[kind] += shard.path.read_bytes() == shard.good
    return tally


def count_plain(n: int, seed: int) -> tuple[Counter[str], Counter[str]]:
    """Damage chunks of plain zarr, one object each as it makes them; return tried and silent."""
    random = np.random.default_rng(seed)
    tried: Counter[str] = Counter()
    silent: Counter[str] = Counter()
    folder = Path(tempfile.mkdtemp(prefix="petalign-flips-", dir=FOLDER))
    made = []
    for i, layout in enumerate(LAYOUTS):
        dtype, shape, chunk, shard = layout
        options: dict[str, Any] = {"chunks": chunk, "shards": shard} if shard else {"chunks": shape}
        data = voxels(layout, random)
        zarr.create_array(folder / str(i), shape=shape, dtype=dtype, **options)[:] = data
        path = next(p for p in (folder / str(i) / "c").rglob("*") if p.is_file())
        made.append((folder / str(i), path, path.read_bytes(), data))
    try:
        for i in range(n):
            name, path, good, data = made[i % len(made)]
            kind, bad = damage(good, random)
            path.write_bytes(bad)
            tried[kind] += 1
            try:
                found = np.asarray(zarr.open_array(name, mode="r")[:])
            except Exception:
                continue
            finally:
                path.write_bytes(good)
            silent[kind] += not np.array_equal(found, data)
    finally:
        shutil.rmtree(folder)
    return tried, silent
