from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import zarr
from ome_zarr_models.v05 import Image

from storage import publish as publish_module
from storage import store, volume
from storage.errors import ConflictError, CorruptError, MissingError
from storage.publish import Pointer, find_version, publish, read_pointer, rollback, versions


def _seen(run: str, epoch: int) -> object:
    """Return what equals a pointer to that run, whatever its root and time are."""

    class Seen:
        __hash__ = None

        def __eq__(self, other: object) -> bool:
            return isinstance(other, Pointer) and (other.run, other.epoch) == (run, epoch)

        def __repr__(self) -> str:
            return f"Pointer({run!r}, {epoch})"

    return Seen()


def _run(root: str, key: str) -> None:
    volume.create_image(
        store.join(root, "runs", key, "aligned"), shape=(2, 33, 20), chunk=(1, 16, 16), shard=None,
        resolution_nm=(40.0, 4.0, 4.0), mips=2, name=key,
    )  # fmt: skip


def test_epochs_grow_and_a_roll_back_is_a_publication(root):
    for key in ("a", "b"):
        _run(root, key)
    assert read_pointer(root) is None
    assert publish(root, "a") == _seen("a", 1)
    assert publish(root, "b") == _seen("b", 2)
    assert publish(root, "b") == _seen("b", 2)
    assert publish(root, "a") == _seen("a", 3)
    assert read_pointer(root) == _seen("a", 3)


def test_the_volume_is_an_ome_zarr_image_of_the_published_run(tmp_path):
    for key in ("a", "b"):
        _run(str(tmp_path), key)
        publish(str(tmp_path), key)
        group = zarr.open_group(str(tmp_path), mode="r")
        image = Image.from_zarr(group)
        paths = [d.path for d in image.ome_attributes.multiscales[0].datasets]
        assert paths == [f"runs/{key}/aligned/0", f"runs/{key}/aligned/1"]
        assert group[paths[1]].shape == (2, 17, 10)
        assert group.attrs["petalign"]["run"] == key


def test_a_driver_that_comes_back_late_cannot_publish(root):
    for key in ("old", "new"):
        _run(root, key)
    publish(root, "new", expected_epoch=0)
    with pytest.raises(ConflictError, match=r"epoch 1 \(run new\), not 0"):
        publish(root, "old", expected_epoch=0)
    assert read_pointer(root) == _seen("new", 1)
    assert publish(root, "new", expected_epoch=0) == _seen("new", 1)  # its own retry


def test_a_run_without_an_aligned_volume_is_not_published(root):
    with pytest.raises(MissingError, match=r"run 'a' of .* has no aligned volume"):
        publish(root, "a")
    assert read_pointer(root) is None
    store.create_json(store.join(root, "runs/a/aligned/zarr.json"), {"node_type": "group"})
    with pytest.raises(CorruptError, match="not an OME-Zarr pyramid"):
        publish(root, "a")


def test_publishers_at_once_leave_pointer_and_group_in_agreement(root):
    keys = [f"run{i}" for i in range(4)]
    for key in keys:
        _run(root, key)
    with ThreadPoolExecutor(4) as pool:
        published = list(pool.map(lambda key: publish(root, key), keys))
    assert sorted(p.epoch for p in published) == [1, 2, 3, 4]
    last = read_pointer(root)
    assert last == max(published, key=lambda p: p.epoch)
    shown = store.read_json(store.join(root, "zarr.json"))["attributes"]
    assert shown["petalign"] == {"run": last.run, "epoch": 4, "root": last.root}
    assert shown["ome"]["multiscales"][0]["name"] == last.run


def test_a_publication_cut_off_before_the_group_is_completed_by_the_next(root, monkeypatch):
    _run(root, "a")
    with monkeypatch.context() as patch:
        patch.setattr("storage.publish._refresh_root", lambda uri: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            publish(root, "a")
    assert read_pointer(root) == _seen("a", 1)
    assert not store.exists(store.join(root, "zarr.json"))
    assert publish(root, "a") == _seen("a", 1)
    assert store.exists(store.join(root, "zarr.json"))


def _shown(root: str):
    return store.read_json(store.join(root, "zarr.json"))["attributes"]["petalign"]


def _between_reading_and_writing_the_group(monkeypatch, action) -> None:
    """Let `action` happen, once, when a publisher has read the pointer and not yet acted on it."""
    real, waiting = publish_module._root_document, [action]

    def hooked(volume_uri: str, pointer: Pointer) -> object:
        if waiting:
            waiting.pop()()
        return real(volume_uri, pointer)

    monkeypatch.setattr(publish_module, "_root_document", hooked)


def test_a_slow_publisher_does_not_take_the_group_back(tmp_path, monkeypatch):
    """It is overtaken by a whole publication, tries to write, and dies before it looks again."""
    root = str(tmp_path)
    for key in ("a", "b"):
        _run(root, key)
    _between_reading_and_writing_the_group(monkeypatch, lambda: publish(root, "b"))
    looks = []

    def dying(volume_uri: str) -> Pointer | None:
        looks.append(volume_uri)
        if len(looks) == 4:  # its own first, the two of the publisher that overtakes, its second
            raise ZeroDivisionError
        return read_pointer(volume_uri)

    monkeypatch.setattr(publish_module, "read_pointer", dying)
    with pytest.raises(ZeroDivisionError):
        publish(root, "a")
    assert (_shown(root)["run"], _shown(root)["epoch"]) == ("b", 2)


def test_a_publisher_completes_what_another_left_half_done(tmp_path, monkeypatch):
    """The other moves the pointer and dies before it writes the group."""
    root = str(tmp_path)
    for key in ("a", "b"):
        _run(root, key)
    half = {"run": "b", "epoch": 2, "root": "r", "published_s": 0.0, "condemned": []}
    _between_reading_and_writing_the_group(
        monkeypatch, lambda: store.replace_json(f"{root}/LATEST.json", half)
    )
    publish(root, "a")
    assert (_shown(root)["run"], _shown(root)["epoch"]) == ("b", 2)


def test_junk_in_place_of_the_pointer_is_named(tmp_path):
    store.replace_json(f"{tmp_path}/LATEST.json", {"run": "a"})
    with pytest.raises(CorruptError, match=r"LATEST\.json is not a publication"):
        read_pointer(str(tmp_path))


def test_versions_are_kept_found_and_brought_back(root):
    for key in ("aa", "bb", "cc"):
        _run(root, key)
        publish(root, key)
    assert [(v.epoch, v.run) for v in versions(root)] == [(1, "aa"), (2, "bb"), (3, "cc")]
    assert find_version(root, 2).run == "bb"
    assert find_version(root, "a").epoch == 1
    with pytest.raises(MissingError, match=r"no version 9; published and kept: epoch 1 \(run aa\)"):
        find_version(root, 9)
    assert rollback(root) == _seen("bb", 4)
    assert rollback(root, 1) == _seen("aa", 5)
    assert rollback(root, "cc") == _seen("cc", 6)
    assert [v.run for v in versions(root)] == ["aa", "bb", "cc", "bb", "aa", "cc"]
    assert find_version(root, "aa").epoch == 5


def test_a_version_whose_publisher_died_is_kept_by_the_next(root, monkeypatch):
    for key in ("a", "b"):
        _run(root, key)
    with monkeypatch.context() as patch:
        patch.setattr("storage.publish._refresh_root", lambda uri: 1 / 0)
        patch.setattr("storage.publish._keep_version", lambda uri, pointer: None)
        with pytest.raises(ZeroDivisionError):
            publish(root, "a")
    assert store.list_names(store.join(root, "versions")) == []
    assert [v.run for v in versions(root)] == ["a"]  # told by the pointer itself
    publish(root, "b")
    assert store.list_names(store.join(root, "versions")) == ["000001.json", "000002.json"]


def test_a_run_that_changed_since_it_was_published_is_not_brought_back(root):
    for key in ("a", "b"):
        _run(root, key)
        publish(root, key)
    store.create_json(store.join(root, "runs/a/manifests/match.json"), {
        "stage": "match", "root": "0" * 64, "units": 0, "objects": 0, "bytes": 0,
        "metadata": {}, "tails": {},
    })  # fmt: skip
    with pytest.raises(CorruptError, match=r"run a of .* has the root"):
        rollback(root)
    assert read_pointer(root) == _seen("b", 2)


def test_a_stage_that_must_be_finished_is_named(root):
    _run(root, "a")
    with pytest.raises(MissingError, match=r"stage 'render' of .* is not finished"):
        publish(root, "a", stages=["render"])
    assert read_pointer(root) is None
