from __future__ import annotations

import asyncio
import pickle

import numpy as np
import pytest
import zarr
from zarr.core.buffer import default_buffer_prototype
from zarr.testing.utils import assert_bytes_equal

from storage import journal, store, volume
from storage.checked import CheckedStore
from storage.errors import (
    ConflictError,
    MissingError,
    StorageError,
    UnavailableError,
    UriError,
)
from storage.shards import ShardLayout

PROTOTYPE = default_buffer_prototype()


def _buffer(data: bytes):
    return PROTOTYPE.buffer.from_bytes(data)


def _get(checked: CheckedStore, key: str, byte_range=None):
    return asyncio.run(checked.get(key, PROTOTYPE, byte_range))


async def _collect(names):
    return sorted([name async for name in names])


@pytest.mark.parametrize("key", ["../escape", "/etc/passwd", "c/../../x", "c//0", "c/0\0", "", "."])
def test_keys_that_leave_the_folder_are_refused(root, key):
    checked = CheckedStore(root, read_only=False)
    with pytest.raises(UriError):
        _get(checked, key)
    with pytest.raises(UriError):
        asyncio.run(checked.set(key, _buffer(b"x")))


def test_a_symbolic_link_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "secret").write_bytes(b"secret")
    (tmp_path / "volume" / "c").mkdir(parents=True)
    (tmp_path / "volume" / "c" / "0").symlink_to(tmp_path / "secret")
    (tmp_path / "volume" / "d").symlink_to(tmp_path)
    checked = CheckedStore(str(tmp_path / "volume"), read_only=False)
    for key in ("c/0", "d/secret"):
        with pytest.raises(UriError, match="symbolic link"):
            _get(checked, key)
    with pytest.raises(UriError, match="symbolic link"):
        asyncio.run(checked.set("d/new", _buffer(b"x")))


def test_the_folder_itself_may_be_a_link(tmp_path):
    (tmp_path / "disk2").mkdir()
    (tmp_path / "volume").symlink_to(tmp_path / "disk2")
    checked = CheckedStore(str(tmp_path / "volume"), read_only=False)
    asyncio.run(checked.set("c/0", _buffer(b"x")))
    assert _get(checked, "c/0").to_bytes() == b"x"


def test_metadata_may_be_absent_and_chunks_may_not(root):
    checked = CheckedStore(root, read_only=True)
    assert _get(checked, "zarr.json") is None
    assert _get(checked, "deep/.zarray") is None
    with pytest.raises(MissingError, match="c/0/0/1 does not exist"):
        _get(checked, "c/0/0/1")
    assert _get(CheckedStore(root, read_only=True, sparse=True), "c/0/0/1") is None


def test_objects_are_written_once(root):
    checked = CheckedStore(root, read_only=False)
    asyncio.run(checked.set("c/0", _buffer(b"voxels")))
    asyncio.run(checked.set("c/0", _buffer(b"voxels")))
    with pytest.raises(ConflictError):
        asyncio.run(checked.set("c/0", _buffer(b"others")))
    with pytest.raises(StorageError, match="never deleted"):
        asyncio.run(checked.delete("c/0"))
    assert_bytes_equal(_get(checked, "c/0"), b"voxels")


def test_read_only_means_it(root):
    with pytest.raises(ValueError, match="read-only"):
        asyncio.run(CheckedStore(root, read_only=True).set("c/0", _buffer(b"x")))
    assert store.list_names(root) == []


def test_a_store_that_writes_blind_finds_metadata_only(root):
    checked = CheckedStore(root, read_only=False)
    for key in ("zarr.json", "c/0"):
        asyncio.run(checked.set(key, _buffer(b"x")))
    blind = checked.for_writing()
    assert _get(blind, "c/0") is None
    assert_bytes_equal(_get(blind, "zarr.json"), b"x")


def test_a_shard_that_vanishes_while_it_is_read_is_not_the_fill_value(tmp_path, monkeypatch):
    made = zarr.create_array(
        str(tmp_path), shape=(64, 64), dtype="u1", chunks=(16, 16), shards=(64, 64)
    )
    made[:] = 7
    array = volume.open_foreign(tmp_path.as_uri())
    get = CheckedStore.get

    async def get_and_delete(self, key, prototype, byte_range=None):
        found = await get(self, key, prototype, byte_range)
        (tmp_path / "c/0/0").unlink(missing_ok=True)
        return found

    monkeypatch.setattr(CheckedStore, "get", get_and_delete)
    with pytest.raises(UnavailableError, match="missing now"):
        volume.read_region(array, (slice(0, 16), slice(0, 16)))
    assert not volume.read_region(
        array, (slice(0, 16), slice(0, 16))
    ).any()  # absent from the start


def test_what_is_read_is_noted(root):
    checked = CheckedStore(root)
    asyncio.run(checked.set("c/0", _buffer(b"x")))
    with journal.journal() as noted:
        _get(checked, "c/0")
        _get(checked, "zarr.json")
    assert noted.read == {f"{root}/c/0"}


def test_a_folder_replaced_by_a_link_is_noticed_after_it_was_emptied(tmp_path):
    checked = CheckedStore(str(tmp_path / "v"), writes="any", sparse=True)
    asyncio.run(checked.set("c/0", _buffer(b"x")))
    assert_bytes_equal(_get(checked, "c/0"), b"x")
    asyncio.run(checked.delete("c/0"))
    assert not (tmp_path / "v/c").exists()
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/0").write_bytes(b"secret")
    (tmp_path / "v/c").symlink_to(tmp_path / "secret")
    with pytest.raises(UriError, match="symbolic link"):
        _get(checked, "c/0")


def test_listing(root):
    checked = CheckedStore(root, read_only=False)
    for key in ("zarr.json", "c/0/0", "c/0/1"):
        asyncio.run(checked.set(key, _buffer(b"x")))
    assert asyncio.run(_collect(checked.list())) == ["c/0/0", "c/0/1", "zarr.json"]
    assert asyncio.run(_collect(checked.list_dir("c/"))) == ["0"]
    assert asyncio.run(_collect(checked.list_prefix("c"))) == ["c/0/0", "c/0/1"]


def test_a_store_travels_without_credentials(s3_root):
    checked = CheckedStore(s3_root, read_only=False)
    asyncio.run(checked.set("c/0", _buffer(b"x")))
    sent = pickle.dumps(checked.with_layout(ShardLayout((4,), (4,), (2,))))
    assert b"only-for-loopback" not in sent
    arrived = pickle.loads(sent)
    assert arrived == checked.with_layout(ShardLayout((4,), (4,), (2,)))
    assert arrived != checked
    assert_bytes_equal(_get(arrived.with_layout(None), "c/0"), b"x")


def test_chunks_outside_the_array_may_be_absent_from_a_shard():
    layout = ShardLayout(shape=(5, 70), shard=(4, 64), chunk=(2, 16))
    index = np.full((2, 4, 2), 7, np.uint64)
    last = (1, 1)  # holds rows 4..7 and columns 64..127, of which 4 and 64..69 exist
    index[0, 1:] = index[1] = np.iinfo(np.uint64).max
    assert layout.index_bytes == index.nbytes + 4
    assert layout.absent(index.tobytes() + b"crc!", last) == []
    assert layout.absent(index.tobytes() + b"crc!", (0, 0)) == [
        (0, 1), (0, 2), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3),
    ]  # fmt: skip
    index[0, 0] = np.iinfo(np.uint64).max
    assert layout.absent(index.tobytes() + b"crc!", last) == [(2, 4)]
