"""Ingesting by bands gives what the whole sections give, and damage costs no more than it must."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from imagecodecs import png_encode

from alignment.errors import DataError
from alignment.pyramid import downsample
from alignment.runs import load, prepare
from alignment.stages import ingest
from alignment.stages.units import Section
from storage.errors import SourceError, UnavailableError
from storage.grid import Box
from storage.volume import open_array, read

LAYOUT = {"volume": {"section_shard_px": 64, "section_chunk_px": 16}}


@pytest.fixture(autouse=True)
def _forget_sources():
    """The stage keeps sources open; here they change under the same name."""
    ingest._source.cache_clear()


def _stack(nz: int, ny: int, nx: int):
    """Noise with holes of no data."""
    rng = np.random.default_rng(0)
    stack = rng.integers(0, 256, (nz, ny, nx)).astype(np.uint8)
    stack[rng.random(stack.shape) < 0.2] = 0
    return stack


def _run(folder, source, config=None):
    uri = prepare(str(source), str(folder / "out.zarr"), config or LAYOUT)
    (phase,) = ingest.phases(load(uri))
    return uri, [phase.work(unit, run_uri=uri) for unit in phase.units]


def _level(uri, mip):
    array = open_array(uri, f"sections/{mip}")
    return read(array, Box((0, 0, 0), array.shape, mip))


def _expected(stack, mips):
    """Yield the levels as whole images: padded to even sides with no data, then halved."""
    for mip in range(mips):
        if mip:
            stack = downsample(np.pad(stack, [(0, 0), *((0, n % 2) for n in stack.shape[1:])]))
        yield stack


@pytest.mark.parametrize(
    "size", [(64, 64), (65, 63), (200, 130), (1, 300), (257, 16), (15, 15), (129, 129)]
)
def test_bands_give_the_levels_of_whole_sections(tmp_path, size):
    stack = _stack(2, *size)
    tifffile.imwrite(tmp_path / "raw.tif", stack, metadata=None, photometric="minisblack")
    uri, records = _run(tmp_path, tmp_path / "raw.tif")
    mips = load(uri).section_mips
    for mip, level in enumerate(_expected(stack, mips)):
        np.testing.assert_array_equal(_level(uri, mip), level)
    for record in records:
        assert record["unreadable"] is None
        assert record["unreadable_rows"] == []
        assert [len(level) for level in record["sha256"]] == [
            -(-n // 64) * -(-m // 64) for n, m in (load(uri).shape_at(k)[1:] for k in range(mips))
        ]
    assert _run(tmp_path, tmp_path / "raw.tif")[1] == records


def _damaged_stack(path, stack, strips):
    """Write a stack in compressed strips of 100 rows, and spoil some of section 1."""
    tifffile.imwrite(
        path, stack, metadata=None, photometric="minisblack", compression="zlib", rowsperstrip=100
    )
    with tifffile.TiffFile(path) as tif:
        page = tif.pages[1]
        places = [(page.dataoffsets[i], page.databytecounts[i]) for i in strips]
    data = bytearray(path.read_bytes())
    for offset, size in places:
        data[offset : offset + size] = bytes(size)
    path.write_bytes(data)


def test_a_damaged_strip_costs_the_rows_around_it(tmp_path):
    stack = _stack(2, 2000, 40)
    _damaged_stack(tmp_path / "raw.tif", stack, [3, 12, 13])
    config = {"volume": {"section_shard_px": 1024, "section_chunk_px": 16}}
    uri, (good, bad) = _run(tmp_path, tmp_path / "raw.tif", config)
    assert good["unreadable"] is None
    # Strip 3 has rows 300 to 399, strips 12 and 13 have rows 1200 to 1399.
    assert bad["unreadable_rows"] == [[0, 512], [1024, 1536]]
    assert bad["unreadable"].startswith("1024 of 2000 rows: section 1 of file:")
    stack[1, :512] = stack[1, 1024:1536] = 0
    for mip, level in enumerate(_expected(stack, load(uri).section_mips)):
        np.testing.assert_array_equal(_level(uri, mip), level)
    ingest._source.cache_clear()
    assert _run(tmp_path, tmp_path / "raw.tif", config)[1] == [good, bad]


def test_a_section_that_cannot_be_read_at_all_becomes_no_data(tmp_path):
    folder = tmp_path / "raw"
    folder.mkdir()
    stack = _stack(3, 70, 50)
    for z, image in enumerate(stack):
        (folder / f"{z}.png").write_bytes(png_encode(image))
    (folder / "1.png").write_bytes((folder / "1.png").read_bytes()[:-40])
    uri, records = _run(tmp_path, folder)
    assert [record["unreadable_rows"] for record in records] == [[], [[0, 70]], []]
    assert records[1]["unreadable"].startswith("section 1, file ")
    stack[1] = 0
    np.testing.assert_array_equal(_level(uri, 0), stack)


class _Source:
    """A source that fails in a way of its own."""

    shape = (2, 40, 40)

    def __init__(self, error: Exception) -> None:
        self.error = error

    def fingerprint(self, z: int) -> str:
        return self.prints[z]

    def read_rows(self, z: int, y0: int, y1: int):
        raise self.error


@pytest.mark.parametrize("error", [UnavailableError("no answer"), MemoryError()])
def test_what_is_no_damage_stops_the_unit(tmp_path, monkeypatch, error):
    tifffile.imwrite(tmp_path / "raw.tif", _stack(2, 40, 40), photometric="minisblack")
    uri = prepare(str(tmp_path / "raw.tif"), str(tmp_path / "out.zarr"), LAYOUT)
    next(ingest.phases(load(uri)))
    source = _Source(error)
    source.prints = ingest._fingerprints(uri)
    monkeypatch.setattr(ingest, "_source", lambda uri: source)
    with pytest.raises(type(error)):
        ingest.ingest_section(Section(0), run_uri=uri)


def test_a_source_that_is_gone_or_another_stops_the_unit(tmp_path):
    """It would become a volume of no data."""
    path = tmp_path / "raw.tif"
    tifffile.imwrite(path, _stack(2, 40, 40), photometric="minisblack")
    uri = prepare(str(path), str(tmp_path / "out.zarr"), LAYOUT)
    next(ingest.phases(load(uri)))
    path.unlink()
    with pytest.raises(SourceError, match="does not exist"):
        ingest.ingest_section(Section(0), run_uri=uri)
    stack = _stack(2, 40, 40)
    stack[1, 3, 3] += 1
    tifffile.imwrite(path, stack, photometric="minisblack")
    ingest.ingest_section(Section(0), run_uri=uri)
    with pytest.raises(DataError, match=r"section 1 \(raw\[1\]\) of .* was changed since the run"):
        ingest.ingest_section(Section(1), run_uri=uri)
    ingest._source.cache_clear()
    tifffile.imwrite(path, _stack(2, 40, 41), photometric="minisblack")
    with pytest.raises(DataError, match=r"has the shape \(2, 40, 41\); it had \(2, 40, 40\)"):
        ingest.ingest_section(Section(0), run_uri=uri)


def test_a_changed_section_changes_its_key_and_no_other(tmp_path):
    path = tmp_path / "raw.tif"
    stack = _stack(3, 40, 40)
    facts = []
    for change in (0, 1):
        stack[1, 3, 3] += change
        tifffile.imwrite(path, stack, photometric="minisblack")
        uri = prepare(str(path), str(tmp_path / "out.zarr"), LAYOUT)
        facts.append([ingest.reads_source(Section(z), run_uri=uri) for z in range(3)])
    assert [a == b for a, b in zip(*facts, strict=True)] == [True, False, True]
    larger = {"volume": LAYOUT["volume"] | {"section_shard_px": 128}}
    uri = prepare(str(path), str(tmp_path / "out.zarr"), larger)
    assert ingest.reads_source(Section(0), run_uri=uri) != facts[1][0]
