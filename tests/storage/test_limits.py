"""Hostile and broken metadata: a working array or an error of storage, and little memory."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from zarr.codecs import BloscCodec

from storage import limits, sections, volume
from storage.errors import CorruptError, LimitError, MissingError, SourceError, StorageError
from tests.storage.memory import at_most_mb

pytestmark = pytest.mark.filterwarnings("ignore")  # zarr and numpy warn of what is tried here

SHAPE = (4, 64, 64)
DATA = np.random.default_rng(0).integers(0, 255, SHAPE, dtype=np.uint8)


def metadata_name(kind: str) -> str:
    return ".zarray" if kind == "zarr 2" else "zarr.json"


@pytest.fixture(scope="module")
def volumes(tmp_path_factory) -> dict[str, Any]:
    """Return folder and metadata of a small volume of each kind, as zarr itself writes it."""
    settings_of = {
        "zarr 2": {"zarr_format": 2, "chunks": (2, 32, 32)},
        "zarr 3": {"chunks": (2, 32, 32), "compressors": BloscCodec()},
        "shards": {"chunks": (2, 16, 16), "shards": (2, 32, 32)},
    }
    found = {}
    for kind, own in settings_of.items():
        folder = tmp_path_factory.mktemp(kind.replace(" ", "")) / "a"
        zarr.create_array(str(folder), shape=SHAPE, dtype="u1", **own)[:] = DATA
        found[kind] = folder, json.loads((folder / metadata_name(kind)).read_text())
    return found


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every value in a document."""
    yield path
    if isinstance(value, dict | list):
        for key, below in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(below, (*path, key))


def changed(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    document = copy.deepcopy(document)
    holder = document
    for key in path[:-1]:
        holder = holder[key]
    if value is DELETED:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return document


DELETED = object()
HOSTILE = st.one_of(
    st.sampled_from([
        DELETED, None, True, -1, 0, 1, 2, 3, 7, 16, 2**20, 2**31, 2**40, 2**63, 2**64, 10**30, 1.5,
        float("nan"), float("inf"), -0.0, "", "|O", "O", "object", "string", "<U9", "|S100000000",
        "<M8[ns]", "complex128", "r8192", "uint8", "float64", "pickle", "json2", "vlen-utf8",
        "zstd", "sharding_indexed", "bytes", "transpose", "crc32c", "../x", "\0", "ü" * 400, [], {},
        [0], [1, 1], [1, 1, 1], [10**9] * 3, [2**40] * 3, [-1, 2, 2], [1.0, 2.0, 2.0], [None] * 3,
        [[]], {"id": "pickle"}, {"id": "zlib", "level": 10**9}, {"id": "lzma", "format": 3},
        {"id": "shuffle", "elementsize": 0}, {"id": "blosc"}, {"id": "delta", "dtype": "O"},
        {"name": "numcodecs.pickle"}, {"name": "zstd"}, {"name": "bytes", "configuration": []},
        {"name": "transpose", "configuration": {"order": [2, 1, 0]}}, [{"name": "bytes"}] * 3,
        {"name": "transpose", "configuration": {"order": [9, 9, 9]}},
        {"name": "sharding_indexed", "configuration": {"chunk_shape": [1, 1, 1]}},
    ]),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner,
                                                                    max_size=4),
        max_leaves=8,
    ),
)  # fmt: skip


@pytest.mark.parametrize("kind", ["zarr 2", "zarr 3", "shards"])
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_mutated_metadata_give_an_array_or_an_error_of_storage(volumes, kind, data):
    folder, document = volumes[kind]
    for _ in range(data.draw(st.integers(1, 2), label="changes")):
        path = data.draw(st.sampled_from(list(places(document))), label="place")
        value = data.draw(HOSTILE, label="value")
        if path or value is not DELETED:
            document = changed(document, path, value)
    (folder / metadata_name(kind)).write_text(json.dumps(document))
    with at_most_mb(200):
        try:
            array = volume.open_foreign(folder.as_uri())
            part = tuple(slice(0, min(n, 3)) for n in array.shape)
            found = volume.read_region(array, part)
        except StorageError:
            return  # anything else fails the test
    assert found.shape == tuple(min(n, 3) for n in array.shape)
    assert found.dtype.kind in "biuf"


def v3(**changes: Any) -> bytes:
    document = {
        "zarr_format": 3, "node_type": "array", "shape": [4, 64, 64], "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2, 32, 32]}},
        "chunk_key_encoding": {"name": "default"}, "fill_value": 0, "codecs": [{"name": "bytes"}],
    }  # fmt: skip
    return json.dumps({**document, **changes}).encode()


def v2(**changes: Any) -> bytes:
    document = {
        "zarr_format": 2, "shape": [4, 64, 64], "chunks": [2, 32, 32], "dtype": "|u1",
        "compressor": None, "filters": None, "fill_value": 0, "order": "C",
    }  # fmt: skip
    return json.dumps({**document, **changes}).encode()


def grid(*chunk: int) -> dict[str, Any]:
    return {"name": "regular", "configuration": {"chunk_shape": list(chunk)}}


def sharding(inner: list[int], codecs: Any = ({"name": "bytes"},), **more: Any) -> Any:
    configuration = {"chunk_shape": inner, "codecs": codecs, **more}
    return [{"name": "sharding_indexed", "configuration": configuration}]


CORPUS = {
    "a shape of 10**20": (v3(shape=[10**10, 10**5, 10**5]), "MAX_OBJECTS"),
    "an axis beyond int64": (v3(shape=[2**64, 64, 64]), "MAX_AXIS"),
    "negative": (v3(shape=[-4, 64, 64]), "MAX_AXIS"),
    "true as a size": (v3(shape=[True, 64, 64]), "MAX_AXIS"),
    "64 axes": (v3(shape=[1] * 64, chunk_grid=grid(*[1] * 64)), "MAX_AXES"),
    "axes that differ": (v3(chunk_grid=grid(2, 32)), "2 axes"),
    "one chunk of a terabyte": (v3(chunk_grid=grid(4, 2**19, 2**19)), "MAX_CHUNK_BYTES"),
    "a chunk of no voxels": (v3(chunk_grid=grid(0, 32, 32)), "MAX_AXIS"),
    "an endless chunk grid": (
        v3(shape=[2**30] * 3, chunk_grid=grid(1, 1, 1)), "MAX_OBJECTS"),
    "a rectilinear grid": (v3(chunk_grid={"name": "rectilinear"}), "regular"),
    "an index of gigabytes": (
        v3(shape=[1, 2**20, 2**20], chunk_grid=grid(1, 2**15, 2**15), codecs=sharding([1, 1, 1])),
        "MAX_CHUNKS_PER_SHARD"),
    "shards in shards": (
        v3(codecs=sharding([1, 32, 32], sharding([1, 16, 16]))), "sharding_indexed"),
    "shards in zstd": (
        v3(codecs=[*sharding([1, 32, 32]), {"name": "zstd"}]), "must be the only one"),
    "a compressed index": (
        v3(codecs=sharding([1, 32, 32], index_codecs=[{"name": "zstd"}])), "zstd"),
    "a million codecs": (v3(codecs=[{"name": "bytes"}] * 100_000), "MAX_CODECS"),
    "no codec": (v3(codecs=[]), "MAX_CODECS"),
    "an unknown codec": (v3(codecs=[{"name": "evil.module:codec"}]), "allowed are"),
    "pickle": (v3(codecs=[{"name": "numcodecs.pickle"}]), "allowed are"),
    "strings": (v3(data_type="string", codecs=[{"name": "vlen-utf8"}]), "numbers only"),
    "raw bits": (v3(data_type="r8388608"), "numbers only"),
    "a struct": (v3(data_type={"name": "structured"}), "numbers only"),
    "objects": (v2(dtype="|O", filters=[{"id": "pickle"}]), "numbers only"),
    "long strings": (v2(dtype="<U1000000"), "numbers only"),
    "records": (v2(dtype=[["a", "<i4"]]), "numbers only"),
    "pickle in zarr 2": (v2(compressor={"id": "pickle"}), "allowed are"),
    "JSON in zarr 2": (v2(filters=[{"id": "json2"}]), "allowed are"),
    "a codec that widens": (v2(filters=[{"id": "astype"}]), "allowed are"),
    "raw lzma": (v2(compressor={"id": "lzma", "format": 3}), "without filters"),
    "a chunk of gigabytes": (v2(chunks=[1, 2**16, 2**16]), "MAX_CHUNK_BYTES"),
    "deep nesting": (v3(attributes=json.loads("[" * 200 + "]" * 200)), "MAX_NESTING"),
    "nesting beyond the parser": (b"[" * 200_000, "not JSON"),
    "megabytes of metadata": (v3(attributes={"a": "x" * 5_000_000}), "would be read"),
    "a number of megabytes": (b'{"zarr_format": ' + b"9" * 1_000_000 + b"}", "not JSON"),
    "not text": (b"\x80\x81", "not JSON"),
    "empty": (b"", "not JSON"),
    "a list": (b"[]", "not a JSON object"),
    "another version": (b'{"zarr_format": 4}', "zarr 2 or 3"),
}  # fmt: skip


@pytest.mark.parametrize("name", CORPUS)
def test_a_crafted_document_is_refused_with_one_clear_error(tmp_path, name):
    document, message = CORPUS[name]
    kind = ".zarray" if b'"zarr_format": 2' in document else "zarr.json"
    (tmp_path / kind).write_bytes(document)
    with at_most_mb(100), pytest.raises(CorruptError, match=message) as found:
        volume.open_foreign(tmp_path.as_uri())
    assert kind in str(found.value)
    assert len(str(found.value)) < 1000


def test_large_but_honest_volumes_are_opened(tmp_path):
    document = v3(
        shape=[7600, 187_000, 92_000], chunk_grid=grid(32, 2048, 2048),
        codecs=sharding([32, 128, 128], [{"name": "bytes"}, {"name": "zstd", "configuration":
                        {"level": 1, "checksum": True}}]),
    )  # fmt: skip
    (tmp_path / "zarr.json").write_bytes(document)
    array = volume.open_foreign(tmp_path.as_uri())
    corner = (slice(7599, 7600), slice(186_990, 187_000), slice(91_990, 92_000))
    assert not volume.read_region(array, corner).any()


def test_a_read_of_too_many_chunks_is_refused(tmp_path):
    (tmp_path / "zarr.json").write_bytes(v3(shape=[1000] * 3, chunk_grid=grid(1, 1, 1)))
    array = volume.open_foreign(tmp_path.as_uri())
    with at_most_mb(50), pytest.raises(LimitError, match="MAX_CHUNKS_PER_READ"):
        volume.read_region(array, (slice(0, 100),) * 3)
    assert volume.read_region(array, (slice(500, 501),) * 3).item() == 0


@pytest.mark.parametrize(
    "path",
    ["../secret", "/etc", "0/../../secret", "a//b", "x" * 300, "a\0b", "", "\ud800", 7, None],
)
def test_a_path_in_ome_metadata_cannot_leave_the_group(tmp_path, path):
    zarr.create_array(str(tmp_path / "secret"), shape=SHAPE, dtype="u1", chunks=SHAPE)[:] = 1
    image = {"axes": list("zyx"), "datasets": [{"path": path}]}
    group = tmp_path / "group"
    group.mkdir()
    attributes = {"ome": {"version": "0.5", "multiscales": [image]}}
    text = json.dumps({"zarr_format": 3, "node_type": "group", "attributes": attributes})
    (group / "zarr.json").write_text(text)
    with pytest.raises((SourceError, StorageError)):
        sections.open_source(group.as_uri())


def test_links_pipes_and_devices_are_not_read(tmp_path):
    import os

    (tmp_path / "zarr.json").write_bytes(v3())
    (tmp_path / "c/0/0").mkdir(parents=True)
    (tmp_path / "secret").write_bytes(bytes(2048))
    (tmp_path / "c/0/0/0").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "c/0/0/1")
    (tmp_path / "c/0/1").symlink_to(tmp_path / "c/0/0")
    array = volume.open_foreign(tmp_path.as_uri())
    for y, x, message in ((0, 0, "symbolic link"), (0, 32, "pipe"), (32, 0, "symbolic link")):
        with pytest.raises(StorageError, match=message):
            volume.read_region(array, (slice(0, 1), slice(y, y + 1), slice(x, x + 1)))


def test_metadata_behind_a_link_are_not_read(tmp_path):
    (tmp_path / "other").write_bytes(v3())
    (tmp_path / "a").mkdir()
    (tmp_path / "a/zarr.json").symlink_to(tmp_path / "other")
    with pytest.raises(StorageError, match="symbolic link"):
        volume.open_foreign((tmp_path / "a").as_uri())
    with pytest.raises(MissingError):
        volume.open_foreign((tmp_path / "b").as_uri())


@pytest.mark.parametrize(
    ("size", "more", "limit"),
    [
        ((0, 10), {}, "MAX_IMAGE_AXIS"),
        ((-1, 10), {}, "MAX_IMAGE_AXIS"),
        ((2**31 - 1, 2**31 - 1), {"streamed": True}, "MAX_IMAGE_AXIS"),
        ((2**20, 2**20), {"streamed": True}, "MAX_IMAGE_PX"),
        ((2**17, 2**17), {}, "MAX_IMAGE_BYTES"),
        ((50_000, 50_000), {"stored_bytes": 1000, "streamed": True}, "MAX_IMAGE_RATIO"),
    ],
)
def test_an_absurd_image_is_refused(size, more, limit):
    with pytest.raises(LimitError, match=limit):
        limits.check_image_size(*size, where="a.tif", **more)


def test_the_largest_section_of_a_mouse_brain_is_allowed():
    limits.check_image_size(187_000, 92_000, where="a.tif", streamed=True, stored_bytes=10**10)
    limits.check_image_size(30_000, 30_000, where="a.png", stored_bytes=10**6)


def test_a_limit_is_an_error_of_broken_data_for_who_catches_these():
    assert issubclass(LimitError, CorruptError)
