"""Precomputed volumes that tensorstore wrote are read to the voxel, sharded or not."""

from __future__ import annotations

import gzip
import json
import pickle

import imagecodecs
import numpy as np
import pytest

from storage import store
from storage.errors import SourceError
from storage.sections import open_source, read_section
from storage.sources.precomputed_shards import morton_code

ts = pytest.importorskip("tensorstore", reason="tensorstore is missing; install petalign[formats]")

OFFSET = [100, 200, 7]


def _stack(nz: int = 5, ny: int = 40, nx: int = 30):
    return np.random.default_rng(0).integers(0, 256, (nz, ny, nx)).astype(np.uint8)


def _spec(path, shape, *, chunk=(16, 16, 2), encoding="raw", sharding=None):
    scale = {
        "size": list(shape[::-1]), "encoding": encoding, "chunk_size": list(chunk),
        "resolution": [4, 8, 40], "voxel_offset": OFFSET,
    }  # fmt: skip
    if sharding:
        scale["sharding"] = {"@type": "neuroglancer_uint64_sharded_v1", **sharding}
    return {
        "driver": "neuroglancer_precomputed",
        "kvstore": {"driver": "file", "path": f"{path}/"},
        "multiscale_metadata": {"data_type": "uint8", "num_channels": 1, "type": "image"},
        "scale_metadata": scale,
        "create": True,
    }


def _write_precomputed(path, stack, **options):
    ts.open(_spec(path, stack.shape, **options)).result()[..., 0] = stack.T


def _sharding(hash_name="identity", preshift=1, minishard=1, shard=1, encoding="gzip"):
    return {
        "preshift_bits": preshift, "minishard_bits": minishard, "shard_bits": shard,
        "hash": hash_name, "minishard_index_encoding": encoding, "data_encoding": encoding,
    }  # fmt: skip


def _assert_is(source, stack):
    assert source.shape == stack.shape
    for z, section in enumerate(stack):
        np.testing.assert_array_equal(read_section(source, z), section)
        np.testing.assert_array_equal(source.read_rows(z, 13, 37), section[13:37])


@pytest.mark.parametrize("chunk", [(16, 16, 2), (64, 64, 1), (7, 5, 3)])
def test_chunks_as_objects(tmp_path, chunk):
    _write_precomputed(tmp_path / "raw", _stack(), chunk=chunk)
    source = open_source(tmp_path / "raw")
    _assert_is(source, _stack())
    _assert_is(pickle.loads(pickle.dumps(source)), _stack())
    assert source.resolution_nm == (40, 8, 4)
    assert source.names == tuple(f"raw[{z}]" for z in range(7, 12))


def test_without_slabs_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("storage.sources.slabs.SLAB_BYTES", 0)
    _write_precomputed(tmp_path / "raw", _stack())
    _assert_is(open_source(tmp_path / "raw"), _stack())


@pytest.mark.parametrize("hash_name", ["identity", "murmurhash3_x86_128"])
@pytest.mark.parametrize(
    ("preshift", "minishard", "shard"), [(1, 1, 1), (0, 3, 2), (3, 0, 5), (0, 0, 0), (0, 2, 13)]
)
@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_chunks_in_shards(tmp_path, hash_name, preshift, minishard, shard, encoding):
    stack = _stack(5, 70, 90)
    sharding = _sharding(hash_name, preshift, minishard, shard, encoding)
    _write_precomputed(tmp_path / "raw", stack, sharding=sharding)
    _assert_is(open_source(tmp_path / "raw"), stack)


def test_chunk_numbers_interleave_the_bits_that_there_are():
    numbers = {
        morton_code((x, y, z), (4, 2, 3)) for x in range(4) for y in range(2) for z in range(3)
    }
    assert len(numbers) == 24
    assert max(numbers) < 32
    assert morton_code((1, 1, 1), (2, 2, 2)) == 7


@pytest.mark.parametrize(
    ("suffix", "wrap"),
    [
        (".gz", gzip.compress),
        ("", gzip.compress),
        (".br", imagecodecs.brotli_encode),
        ("", imagecodecs.brotli_encode),
        (".zstd", imagecodecs.zstd_encode),
    ],
)
def test_chunks_compressed_once_more(tmp_path, suffix, wrap):
    """CloudVolume compresses raw chunks; on disk their names say so, in S3 a header does."""
    _write_precomputed(tmp_path / "raw", _stack())
    for path in list((tmp_path / "raw/4_8_40").iterdir()):
        content = path.read_bytes()
        path.unlink()
        path.with_name(path.name + suffix).write_bytes(wrap(content))
    source = open_source(tmp_path / "raw")
    _assert_is(source, _stack())
    assert len(set(source.describe()["sections"])) == 3


@pytest.mark.parametrize("encoding", ["jpeg", "png"])
def test_encoded_images(tmp_path, encoding):
    z, y, x = np.mgrid[:5, :40, :30]
    stack = (100 + 50 * np.sin(y / 9) * np.cos(x / 7) + z).astype(np.uint8)
    spec = _spec(tmp_path / "raw", stack.shape, encoding=encoding)
    volume = ts.open(spec).result()
    volume[..., 0] = stack.T
    expected = np.asarray(volume[..., 0].read().result()).T
    _assert_is(open_source(tmp_path / "raw"), expected)
    for path in (tmp_path / "raw/4_8_40").iterdir():
        path.write_bytes(gzip.compress(path.read_bytes()))
    _assert_is(open_source(tmp_path / "raw"), expected)


def test_absent_chunks_are_no_data(tmp_path):
    stack = _stack()
    for name, options in (("raw", {}), ("shards", {"sharding": _sharding()})):
        volume = ts.open(_spec(tmp_path / name, stack.shape, **options)).result()
        volume[:, :, 9:11, 0] = stack[2:4].T
        expected = np.zeros_like(stack)
        expected[2:4] = stack[2:4]
        _assert_is(open_source(tmp_path / name), expected)


def test_a_damaged_chunk_costs_its_rows_only(tmp_path):
    stack = _stack()
    _write_precomputed(tmp_path / "raw", stack)
    path = tmp_path / "raw/4_8_40/100-116_216-232_9-11"
    path.write_bytes(path.read_bytes()[:30])
    source = open_source(tmp_path / "raw")
    np.testing.assert_array_equal(source.read_rows(2, 0, 16), stack[2, :16])
    np.testing.assert_array_equal(read_section(source, 1), stack[1])
    with pytest.raises(SourceError, match=r"100-116_216-232_9-11 cannot be decoded"):
        source.read_rows(3, 10, 20)


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_a_cut_shard_is_an_error_never_zeros(tmp_path, encoding):
    _write_precomputed(tmp_path / "raw", _stack(), sharding=_sharding(encoding=encoding))
    path = tmp_path / "raw/4_8_40/1.shard"
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        source = open_source(tmp_path / "raw")
        with pytest.raises(SourceError, match="shard"):
            [read_section(source, z) for z in range(5)]


def test_a_changed_section_is_told_from_the_others(tmp_path):
    _write_precomputed(tmp_path / "raw", _stack())
    before = open_source(tmp_path / "raw").describe()
    assert json.loads(json.dumps(before)) == before
    path = tmp_path / "raw/4_8_40/100-116_216-232_9-11"
    path.write_bytes(path.read_bytes())
    after = open_source(tmp_path / "raw").describe()
    assert [z for z in range(5) if before["sections"][z] != after["sections"][z]] == [2, 3]


def test_a_changed_shard_changes_all_sections(tmp_path):
    _write_precomputed(tmp_path / "raw", _stack(), sharding=_sharding())
    before = open_source(tmp_path / "raw").describe()["sections"]
    assert len(set(before)) == 1
    path = tmp_path / "raw/4_8_40/1.shard"
    path.write_bytes(path.read_bytes())
    assert not set(before) & set(open_source(tmp_path / "raw").describe()["sections"])


@pytest.mark.parametrize("sharding", [None, _sharding("murmurhash3_x86_128")])
def test_in_s3(s3_root, tmp_path, sharding):
    _write_precomputed(tmp_path / "raw", _stack(), sharding=sharding)
    for key, _, _ in store.walk(f"file://{tmp_path}/raw"):
        store.create_bytes(f"{s3_root}/raw/{key}", (tmp_path / "raw" / key).read_bytes())
    source = open_source(f"{s3_root}/raw")
    _assert_is(source, _stack())
    assert len(source.describe()["sections"]) == 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data_type": "uint16"}, "uint16 pixels; expected uint8"),
        ({"num_channels": 3}, "has 3 channels"),
        ({"scales": []}, "does not describe a precomputed volume"),
        ({"scales": [{"encoding": "compressed_segmentation"}]}, "encoded as 'compressed_segm"),
        ({"scales": [{"chunk_sizes": [[2**12, 2**12, 64]]}]}, "at most 128 MiB a chunk"),
        ({"scales": [{"key": "../../etc"}]}, "does not describe|segment"),
        ({"scales": [{"sharding": {"@type": "new"}}]}, "does not describe|unknown kind"),
    ],
)
def test_what_is_no_stack(tmp_path, change, message):
    _write_precomputed(tmp_path / "raw", _stack())
    path = tmp_path / "raw/info"
    info = json.loads(path.read_text())
    scales = change.pop("scales", None)
    info |= change
    if scales is not None:
        info["scales"] = [info["scales"][0] | scale for scale in scales]
    path.write_text(json.dumps(info))
    with pytest.raises(SourceError, match=message):
        open_source(tmp_path / "raw")
