"""N5 datasets that tensorstore wrote are read to the voxel."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from storage import store
from storage.errors import SourceError
from storage.sections import open_source, read_section

ts = pytest.importorskip("tensorstore", reason="tensorstore is missing; install petalign[formats]")


def _stack(nz: int = 5, ny: int = 40, nx: int = 30):
    return np.random.default_rng(0).integers(0, 256, (nz, ny, nx)).astype(np.uint8)


BLOSC = {"type": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1}


def _write_n5(path, stack, compression="gzip", **attributes):
    spec = {
        "driver": "n5",
        "kvstore": {"driver": "file", "path": f"{path}/"},
        "metadata": {
            "dimensions": list(stack.shape[::-1]),
            "blockSize": [16, 16, 2, 1][: stack.ndim],
            "dataType": str(stack.dtype),
            "compression": {"type": compression} if isinstance(compression, str) else compression,
        },
        "create": True,
    }
    ts.open(spec).result()[...] = stack.T
    found = json.loads((path / "attributes.json").read_text())
    (path / "attributes.json").write_text(json.dumps(found | attributes))


def _assert_is(source, stack):
    assert source.shape == stack.shape
    for z, section in enumerate(stack):
        np.testing.assert_array_equal(read_section(source, z), section)
        np.testing.assert_array_equal(source.read_rows(z, 13, 37), section[13:37])


@pytest.mark.parametrize("compression", ["raw", "gzip", "bzip2", "xz", BLOSC, "zstd"])
def test_every_compression(tmp_path, compression):
    stack = _stack()
    _write_n5(tmp_path / "raw.n5", stack, compression)
    source = open_source(tmp_path / "raw.n5")
    _assert_is(source, stack)
    assert source.names[2] == "raw.n5[2]"
    _assert_is(pickle.loads(pickle.dumps(source)), stack)


def test_without_slabs_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("storage.sources.slabs.SLAB_BYTES", 0)
    _write_n5(tmp_path / "raw", _stack())
    _assert_is(open_source(tmp_path / "raw"), _stack())


def test_zlib_instead_of_gzip_and_a_trailing_channel(tmp_path):
    stack = _stack()
    _write_n5(tmp_path / "raw", stack[None], {"type": "gzip", "useZlib": True})
    _assert_is(open_source(tmp_path / "raw"), stack)


def test_absent_blocks_are_no_data(tmp_path):
    stack = _stack()
    _write_n5(tmp_path / "raw", stack)
    (tmp_path / "raw/1/0/0").unlink()
    stack[:2, :16, 16:] = 0
    _assert_is(open_source(tmp_path / "raw"), stack)


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"pixelResolution": {"unit": "um", "dimensions": [0.004, 0.008, 0.04]}}, (40, 8, 4)),
        ({"resolution": [4, 8, 40], "units": ["nm"] * 3}, (40, 8, 4)),
        (
            {"transform": {"axes": ["z", "y", "x"], "scale": [40, 8, 4], "units": ["nm"] * 3}},
            (40, 8, 4),
        ),
        ({"pixelResolution": {"unit": "parsec", "dimensions": [1, 1, 1]}}, None),
        ({"resolution": [4]}, None),
        ({}, None),
    ],
)
def test_the_finest_level_of_a_group_and_its_voxel_size(tmp_path, attributes, expected):
    (tmp_path / "raw.n5").mkdir()
    (tmp_path / "raw.n5/attributes.json").write_text('{"n5": "2.5.1"}')
    _write_n5(tmp_path / "raw.n5/s0", _stack(), **attributes)
    source = open_source(tmp_path / "raw.n5")
    assert source.resolution_nm == (pytest.approx(expected) if expected else None)
    _assert_is(source, _stack())


def test_a_damaged_block_costs_its_rows_only(tmp_path):
    stack = _stack()
    _write_n5(tmp_path / "raw", stack)
    path = tmp_path / "raw/1/1/1"  # x, y, z: sections 2 and 3, rows 16 to 31
    whole = path.read_bytes()
    source = open_source(tmp_path / "raw")
    rng = np.random.default_rng(0)
    for place in range(16, len(whole) - 8, 11):
        data = bytearray(whole)
        data[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        try:
            found = open_source(tmp_path / "raw").read_rows(2, 16, 32)
        except SourceError:
            continue
        assert 16 <= place < 26  # gzip's header: its checksum does not cover it
        np.testing.assert_array_equal(found, stack[2, 16:32])
    path.write_bytes(whole[:50])
    np.testing.assert_array_equal(source.read_rows(2, 0, 16), stack[2, :16])
    with pytest.raises(SourceError, match=r"raw/1/1/1 cannot be decoded.*cut off"):
        source.read_rows(3, 10, 20)


def test_a_changed_section_is_told_from_the_others(tmp_path):
    _write_n5(tmp_path / "raw", _stack())
    before = open_source(tmp_path / "raw").describe()
    assert json.loads(json.dumps(before)) == before
    (tmp_path / "raw/0/0/1").write_bytes((tmp_path / "raw/0/0/1").read_bytes())
    after = open_source(tmp_path / "raw").describe()
    assert [z for z in range(5) if before["sections"][z] != after["sections"][z]] == [2, 3]


def test_in_s3(s3_root, tmp_path):
    _write_n5(tmp_path / "raw", _stack())
    for key, _, _ in store.walk(f"file://{tmp_path}/raw"):
        store.create_bytes(f"{s3_root}/raw/{key}", (tmp_path / "raw" / key).read_bytes())
    source = open_source(f"{s3_root}/raw")
    _assert_is(source, _stack())
    assert len(set(source.describe()["sections"])) == 3


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"n5": "2.5.1"}, "group without a level s0.*Below it: member"),
        ({"dimensions": [4, 4]}, "cannot be understood"),
        ({"dimensions": [4, 4], "blockSize": [2, 2], "dataType": "uint8"}, r"expected \(x, y, z\)"),
        (
            {"dimensions": [4, 4, 4, 2], "blockSize": [2] * 4, "dataType": "uint8"},
            "nothing after it but axes of length 1",
        ),
        ({"dimensions": [4] * 3, "blockSize": [2] * 3, "dataType": "uint16"}, "uint16 pixels"),
        ({"dimensions": [4] * 3, "blockSize": [2] * 3, "dataType": "voxel"}, "unknown type"),
        (
            {"dimensions": [4] * 3, "blockSize": [2] * 3, "dataType": "uint8",
             "compression": {"type": "lz4"}},
            "compressed by 'lz4'; expected one of raw, gzip",
        ),
        (
            {"dimensions": [4] * 3, "blockSize": [2**20] * 3, "dataType": "uint8"},
            "at most 128 MiB a block",
        ),
    ],
)  # fmt: skip
def test_what_is_no_stack(tmp_path, attributes, message):
    (tmp_path / "raw/member").mkdir(parents=True)
    (tmp_path / "raw/attributes.json").write_text(json.dumps(attributes))
    with pytest.raises(SourceError, match=message):
        open_source(tmp_path / "raw")
