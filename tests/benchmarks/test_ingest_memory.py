"""What ingesting large sections needs: memory for one row of shards, whatever their size.

The sources are sparse files with noise in a few places; each run is a process of its own, whose
peak resident memory the kernel tells. `pytest -s` prints the figures.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr

from storage.volume import Box, open_array, read

SCRIPT = """
import json, sys, time
from pathlib import Path
from alignment.runs import load, prepare
from alignment.stages import ingest
from alignment.stages.units import Section

def peak_bytes():
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1]) * 1024

uri = prepare(sys.argv[1], sys.argv[2])
begun = time.perf_counter()
for phase in ingest.phases(load(uri)):
    idle = peak_bytes()
    records = [phase.work(unit, run_uri=uri) for unit in phase.units]
print(json.dumps({
    "uri": uri, "idle": idle, "peak": peak_bytes(), "seconds": time.perf_counter() - begun,
    "bytes": sum(record["bytes_read"] for record in records),
    "unreadable": [record["unreadable"] for record in records],
}))
"""

PATCH_PX = 300


def _patches(ny: int, nx: int):
    """Yield corners and voxels of the places that are not black: some across shards' borders."""
    rng = np.random.default_rng(0)
    for y, x in ((0, 0), (4000, 4000), (ny - PATCH_PX, nx - PATCH_PX), (ny // 2, nx // 3)):
        yield y, x, rng.integers(1, 256, (PATCH_PX, PATCH_PX)).astype(np.uint8)


def _write_raw_strips(path: Path, ny: int, nx: int) -> None:
    shape = (2, ny, nx)
    tifffile.imwrite(
        path, shape=shape, dtype=np.uint8, bigtiff=True, rowsperstrip=64, metadata=None,
        photometric="minisblack",
    )  # fmt: skip
    with tifffile.TiffFile(path) as tif:
        starts = [page.dataoffsets[0] for page in tif.pages]
    with path.open("r+b") as file:
        for start in starts:
            for y0, x0, patch in _patches(ny, nx):
                for y, row in enumerate(patch, y0):
                    file.seek(start + y * nx + x0)
                    file.write(row.tobytes())


def _write_zarr(path: Path, ny: int, nx: int) -> None:
    array = zarr.create_array(str(path), shape=(2, ny, nx), chunks=(1, 1024, 1024), dtype="uint8")
    for z in range(2):
        for y, x, patch in _patches(ny, nx):
            array[z, y : y + PATCH_PX, x : x + PATCH_PX] = patch


def _ingest(source: Path, target: Path) -> dict:
    found = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(source), str(target)],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    result = json.loads(found.stdout)
    print(
        f"\n{source.name}: {result['bytes'] / 1e9:.1f} GB in {result['seconds']:.0f} s, "
        f"{result['bytes'] / result['seconds'] / 1e9:.3f} GB/s; "
        f"peak RSS {result['peak'] / 1e6:.0f} MB, {result['idle'] / 1e6:.0f} MB of it before"
    )
    return result


def _assert_ingested(result: dict, ny: int, nx: int) -> None:
    assert result["unreadable"] == [None, None]
    for z in range(2):
        for y, x, patch in _patches(ny, nx):
            fine = Box((z, y, x), (z + 1, y + PATCH_PX, x + PATCH_PX), 0)
            found = read(open_array(result["uri"], "sections/0"), fine)
            np.testing.assert_array_equal(found[0], patch)
    y, x, patch = next(_patches(ny, nx))
    half = read(open_array(result["uri"], "sections/1"), Box((0, 0, 0), (1, 150, 150), 1))
    mean = patch.reshape(150, 2, 150, 2).sum((1, 3), dtype=int)
    np.testing.assert_array_equal(half[0], (mean + 2) // 4)


@pytest.mark.parametrize("write", [_write_raw_strips, _write_zarr])
def test_ingesting_needs_memory_for_a_row_of_shards(tmp_path, write):
    """0.5 GB in two sections; holding one of them, or two rows of shards, would show."""
    ny, nx = 8 * 1024, 32 * 1024
    write(tmp_path / "raw", ny, nx)
    result = _ingest(tmp_path / "raw", tmp_path / "out")
    assert result["peak"] - result["idle"] < 4096 * nx + 150e6
    _assert_ingested(result, ny, nx)


@pytest.mark.slow
@pytest.mark.parametrize("write", [_write_raw_strips, _write_zarr])
def test_20_gb_need_less_than_1_gb(tmp_path, write):
    write(tmp_path / "raw", 100_000, 100_000)
    result = _ingest(tmp_path / "raw", tmp_path / "out")
    assert result["bytes"] == 20e9
    assert result["peak"] < 1e9
    _assert_ingested(result, 100_000, 100_000)
