"""Chunks that inflate to more than their array allows for, in every codec and container."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import pickle
import zlib

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec
from zarr.codecs import numcodecs as v3

from storage import store, volume
from storage.errors import CorruptError, LimitError
from storage.inflate import inflate
from storage.volume import Box
from tests.storage.memory import at_most_mb

pytestmark = pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning")

GIB = 2**30
CHUNK = (1, 64, 64)


def unsized_zstd(size: int) -> bytes:
    """Return a zstd frame that does not say how large it is: runs of 128 kB of zeros."""
    frame = bytearray(b"\x28\xb5\x2f\xfd\x00\x50")
    while size > 0:
        run = min(size, 2**17)
        size -= run
        frame += (run << 3 | 2 | (size <= 0)).to_bytes(3, "little") + b"\0"
    return bytes(frame)


def sized_zstd(size: int) -> bytes:
    """Return the same with the size in its header."""
    return b"\x28\xb5\x2f\xfd\xc0\x50" + size.to_bytes(8, "little") + unsized_zstd(size)[6:]


def zeros(make, size: int) -> bytes:
    """Return what a streaming compressor makes of `size` zeros."""
    parts = [make.compress(bytes(2**24)) for _ in range(size // 2**24)]
    return b"".join([*parts, make.flush()])


def blosc_claim(size: int) -> bytes:
    plain = bytearray(numcodecs.blosc.compress(bytes(4096), b"lz4", 1))
    plain[4:8] = size.to_bytes(4, "little")
    return bytes(plain)


BOMBS = {
    "zstd": sized_zstd(2 * GIB),
    "zstd without a size": unsized_zstd(2 * GIB),
    "zstd in a second frame": sized_zstd(4096) + sized_zstd(2 * GIB),
    "zstd behind a skipped frame": b"\x50\x2a\x4d\x18\4\0\0\0abcd" + sized_zstd(2 * GIB),
    "gzip": zeros(zlib.compressobj(9, wbits=31), GIB // 4),
    "gzip in a second member": gzip.compress(bytes(4096)) + gzip.compress(bytes(2**28), 1),
    "zlib": zeros(zlib.compressobj(9), GIB // 4),
    "bz2": zeros(bz2.BZ2Compressor(), GIB // 4),
    "lzma": zeros(lzma.LZMACompressor(preset=0), GIB // 4),
    "lz4": (2**31 - 1).to_bytes(4, "little") + numcodecs.lz4.compress(bytes(4096))[4:],
    "blosc": blosc_claim(2**31 - 1),
}


def array_v2(uri: str, codec: str) -> None:
    document = {
        "zarr_format": 2, "shape": [1, 64, 64], "chunks": list(CHUNK), "dtype": "|u1",
        "compressor": {"id": codec}, "filters": None, "fill_value": 0, "order": "C",
    }  # fmt: skip
    store.create_bytes(f"{uri}/.zarray", json.dumps(document).encode())


def array_v3(uri: str, codec: str, *, sharded: bool = False) -> None:
    own = codec in ("zstd", "gzip", "blosc")
    settings = {
        "zstd": {"level": 1, "checksum": False}, "gzip": {"level": 1},
        "blosc": {"cname": "lz4", "clevel": 1, "shuffle": "noshuffle", "typesize": 1,
                  "blocksize": 0},
    }.get(codec, {})  # fmt: skip
    codecs = [
        {"name": "bytes"},
        {"name": codec if own else f"numcodecs.{codec}", "configuration": settings},
    ]
    if sharded:
        inner = {"chunk_shape": list(CHUNK), "codecs": codecs}
        codecs = [{"name": "sharding_indexed", "configuration": inner}]
    document = {
        "zarr_format": 3, "node_type": "array", "shape": [1, 64, 64], "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": list(CHUNK)}},
        "chunk_key_encoding": {"name": "default"}, "fill_value": 0, "codecs": codecs,
    }  # fmt: skip
    store.create_bytes(f"{uri}/zarr.json", json.dumps(document).encode())


def shard(chunk: bytes) -> bytes:
    index = np.array([0, len(chunk)], "<u8").tobytes()
    crc = numcodecs.checksum32.CRC32C(location="end").encode(np.frombuffer(index, "u1"))
    return chunk + bytes(crc)


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("kind", ["zarr 2", "zarr 3", "shard"])
def test_a_bomb_is_refused_and_takes_no_memory(tmp_path, kind, name):
    codec, bomb, uri = name.split()[0], BOMBS[name], tmp_path.as_uri()
    if kind == "zarr 2":
        array_v2(uri, codec)
        store.create_bytes(f"{uri}/0.0.0", bomb)
    else:
        array_v3(uri, codec, sharded=kind == "shard")
        store.create_bytes(f"{uri}/c/0/0/0", shard(bomb) if kind == "shard" else bomb)
    array = volume.open_foreign(uri)
    for opened in (array, pickle.loads(pickle.dumps(array))):
        with at_most_mb(50), pytest.raises(LimitError, match=r"inflates to more|would be read"):
            volume.read(opened, Box((0, 0, 0), CHUNK, mip=0))


def test_an_array_of_a_run_is_guarded_too(root):
    array = volume.create_array(
        root, "a", shape=(1, 64, 64), chunk=CHUNK, dtype=np.uint8, fill_value=0,
        dimension_names=("z", "y", "x"),
    )  # fmt: skip
    bomb = np.frombuffer(sized_zstd(2**28), "u1")
    crc = bytes(numcodecs.checksum32.CRC32C(location="end").encode(bomb))
    store.create_bytes(store.join(root, "a/c/0/0/0"), crc)
    with at_most_mb(50), pytest.raises(LimitError):
        volume.read(array, Box((0, 0, 0), CHUNK, mip=0))


def test_an_object_larger_than_its_metadata_allow_for_is_not_fetched(root):
    uri = store.join(root, "a")
    array_v3(uri, "zstd")
    store.create_bytes(f"{uri}/c/0/0/0", bytes(2**27))
    array = volume.open_foreign(uri)
    with at_most_mb(50), pytest.raises(LimitError, match="would be read"):
        volume.read(array, Box((0, 0, 0), CHUNK, mip=0))


@pytest.mark.parametrize("entry", [(0, 2**33), (2**63, 2**63 + 5), (2**40, 100), (0, 0)])
def test_a_shard_whose_index_names_absurd_places_is_refused(root, entry):
    uri = store.join(root, "a")
    array_v3(uri, "zstd", sharded=True)
    path = store.join(uri, "zarr.json")
    document = store.read_json(path)
    document["shape"] = document["chunk_grid"]["configuration"]["chunk_shape"] = [1, 64, 128]
    store.replace_json(path, document)
    index = np.array([entry, entry], "<u8").view("u1").reshape(-1)
    crc = bytes(numcodecs.checksum32.CRC32C(location="end").encode(index))
    store.create_bytes(f"{uri}/c/0/0/0", crc)
    array = volume.open_foreign(uri)
    for width in (64, 128):  # one chunk of the shard, and all
        with at_most_mb(50), pytest.raises(CorruptError):
            volume.read(array, Box((0, 0, 0), (1, 64, width), mip=0))


COMPRESSORS = {
    2: [numcodecs.Zstd(), numcodecs.GZip(), numcodecs.Zlib(), numcodecs.Blosc(), numcodecs.LZ4(),
        numcodecs.BZ2(), numcodecs.LZMA(), None],
    3: [ZstdCodec(), GzipCodec(), BloscCodec(), v3.Zlib(), v3.LZ4(), v3.BZ2(), v3.LZMA(),
        v3.Zstd(), v3.GZip(), v3.Blosc(), None],
}  # fmt: skip


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("dtype", ["u1", ">u2", "<f4"])
def test_what_other_programs_write_is_read(tmp_path, version, dtype):
    data = np.random.default_rng(0).integers(0, 200, (3, 100, 130)).astype(dtype)
    for number, compressor in enumerate(COMPRESSORS[version]):
        made = zarr.create_array(
            str(tmp_path / str(number)), shape=data.shape, dtype=dtype, chunks=(2, 64, 64),
            compressors=compressor, zarr_format=version,
        )  # fmt: skip
        made[:] = data
        found = volume.open_foreign((tmp_path / str(number)).as_uri())
        whole = volume.read(found, Box((0, 0, 0), (3, 100, 130), mip=0))
        np.testing.assert_array_equal(whole, data)


def test_filters_and_checksums_of_zarr_2_are_read(tmp_path):
    data = np.random.default_rng(0).integers(0, 2000, (4, 70, 70)).astype("<u2")
    filters = [numcodecs.Shuffle(2), numcodecs.CRC32(), numcodecs.Fletcher32()]
    made = zarr.create_array(
        str(tmp_path), shape=data.shape, dtype="<u2", chunks=(2, 64, 64), zarr_format=2,
        filters=filters, compressors=numcodecs.Zlib(1),
    )  # fmt: skip
    made[:] = data
    found = volume.open_foreign(tmp_path.as_uri())
    np.testing.assert_array_equal(volume.read(found, Box((0, 0, 0), data.shape, mip=0)), data)


@pytest.mark.parametrize("codec", ["zstd", "gzip", "zlib", "bz2", "lzma", "blosc", "lz4"])
def test_truncated_chunks_are_detected(codec):
    kind = numcodecs.get_codec({"id": codec})
    data = np.random.default_rng(0).integers(90, 140, 40_000).astype(np.uint8)
    whole = bytes(kind.encode(data))
    assert bytes(inflate(codec, whole, 50_000, kind.decode)) == data.tobytes()

    def decode(part: bytes) -> None:
        found = inflate(codec, part, 50_000, kind.decode)
        np.frombuffer(found, np.uint8).reshape(200, 200)  # as zarr does with what came out

    for size in range(0, len(whole), 997):
        with pytest.raises((CorruptError, RuntimeError, ValueError)):
            decode(whole[:size])
