from __future__ import annotations

import pytest

from storage import store
from storage.commit import records
from storage.commit.records import StoredObject, objects_of
from storage.errors import ConflictError, CorruptError, MissingError, UriError
from storage.grid import tile
from storage.journal import journal


def test_records_are_found_by_unit(root):
    boxes = [box.label for box in tile((2, 8, 8), (1, 4, 8), mip=0)]
    assert records.recorded(root, "render", "mip0") == set()
    for i, label in enumerate(boxes):
        records.record(root, "render", "mip0", label, {"sha256": f"{i}"})
    records.record(root, "render", "mip1", "m1_z0_y0_x0", {"sha256": "x"})
    assert records.recorded(root, "render", "mip0") == set(boxes)
    assert records.recorded(root, "render", "mip1") == {"m1_z0_y0_x0"}
    found = records.read_records(root, "render", "mip0")
    assert found == {label: {"sha256": f"{i}"} for i, label in enumerate(boxes)}
    assert list(found) == sorted(boxes)
    assert records.read_records(root, "render", "mip0", boxes[1:2]) == {boxes[1]: {"sha256": "1"}}
    with pytest.raises(MissingError, match="m9"):
        records.read_records(root, "render", "mip0", ["m9"])


def test_a_unit_is_recorded_once(root):
    records.record(root, "match", "d1", "z4", {"sha256": "a"})
    records.record(root, "match", "d1", "z4", {"sha256": "a"})
    with pytest.raises(ConflictError, match=r"commits/match/d1/z4\.json"):
        records.record(root, "match", "d1", "z4", {"sha256": "b"})
    assert records.read_records(root, "match", "d1") == {"z4": {"sha256": "a"}}


def test_names_cannot_leave_the_run(tmp_path):
    with pytest.raises(UriError):
        records.record(str(tmp_path), "match", "..", "../../x", {})


def test_a_record_names_what_was_written(root):
    run_uri = store.join(root, "runs/a")
    with journal() as noted:
        store.create_bytes(f"{run_uri}/x/c/0", b"voxels")
        store.create_bytes(f"{run_uri}/x/c/0", b"voxels")  # found to be there: the same object
        store.create_bytes(f"{root}/elsewhere", b"not of the run")
    objects = objects_of(noted.written, run_uri)
    assert [(o.path, o.bytes) for o in objects] == [("x/c/0", 6)]
    records.record(run_uri, "match", "d1", "z4", {"n": 1}, key="k", objects=objects)
    commit = records.read_commit(run_uri, "match", "d1", "z4")
    assert (commit.key, commit.objects, commit.value) == ("k", objects, {"n": 1})


def test_the_content_of_a_unit_is_its_objects_and_its_value():
    first, other = StoredObject("x/c/0", 1, "0", "aa"), StoredObject("y/c/0", 1, "0", "bb")
    whole = records.Commit("k", (first, other), {"n": 1})
    assert whole.content() == records.Commit("another key", (first, other), {"n": 1}).content()
    assert whole.content() != records.Commit("k", (first, other), {"n": 2}).content()
    assert whole.content("x/") == records.Commit("k", (first,), {"n": 2}).content("x/")
    assert whole.content("x/") != whole.content("y/")


def test_junk_is_not_a_record(root):
    for junk in ([1], {"key": "k", "objects": [{"path": "x"}], "value": {}}, {"value": {}}):
        store.replace_json(records.uri_of(root, "match", "d1", "z4"), junk)
        with pytest.raises(CorruptError, match=r"z4\.json is not the record of a unit"):
            records.read_commit(root, "match", "d1", "z4")
