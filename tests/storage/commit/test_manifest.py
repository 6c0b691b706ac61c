from __future__ import annotations

import pytest

from storage import store
from storage.commit import manifest, records
from storage.commit.merkle import merkle_root
from storage.commit.records import objects_of
from storage.errors import ConflictError, CorruptError, MissingError
from storage.journal import journal


def write_unit(run_uri, unit, data=b"voxels"):
    with journal() as noted:
        store.create_bytes(f"{run_uri}/x/{unit}", data)
    objects = objects_of(noted.written, run_uri)
    records.record(run_uri, "masks", "sections", unit, {"n": 1}, key="k", objects=objects)


def test_a_stage_is_sealed_when_all_that_is_expected_is_there(root):
    write_unit(root, "a")
    with pytest.raises(MissingError, match=r"sections/b\.json"):
        manifest.seal(root, "masks", {"sections": ["a", "b"]})
    assert manifest.sealed_stages(root) == set()
    write_unit(root, "b")
    sealed = manifest.seal(root, "masks", {"sections": ["b", "a"]})
    assert (sealed.units, sealed.objects, sealed.bytes) == (2, 2, 12)
    assert manifest.seal(root, "masks", {"sections": ["a", "b"]}) == sealed
    assert manifest.read_seal(root, "masks") == sealed
    lines = manifest.read_lines(root, "masks")
    assert [line.unit for line in lines] == ["", "a", "b"]
    stored = store.read_bytes(records.uri_of(root, "masks", "sections", "a"))
    assert lines[1].record == manifest.digest_of(stored)


def test_a_changed_line_is_found_by_the_root(root):
    write_unit(root, "a")
    manifest.seal(root, "masks", {"sections": ["a"]})
    uri = manifest.lines_uri(root, "masks")
    store.replace_bytes(uri, store.read_bytes(uri).replace(b'"bytes":6', b'"bytes":7'))
    with pytest.raises(CorruptError, match="Merkle root"):
        manifest.read_lines(root, "masks")


def test_a_stage_cannot_be_sealed_twice_with_other_units(root):
    write_unit(root, "a")
    manifest.seal(root, "masks", {"sections": ["a"]})
    write_unit(root, "b")
    with pytest.raises(ConflictError):
        manifest.seal(root, "masks", {"sections": ["a", "b"]})


def test_the_root_of_a_run_names_the_stage_that_is_not_finished(root):
    write_unit(root, "a")
    manifest.seal(root, "masks", {"sections": ["a"]})
    assert manifest.run_root(root) == manifest.run_root(root, ["masks"])
    with pytest.raises(MissingError, match=r"stage 'match' of .* is not finished"):
        manifest.run_root(root, ["masks", "match"])


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8, 13])
def test_a_merkle_root_depends_on_every_leaf_and_their_order(n):
    leaves = [b"%d" % i for i in range(n)]
    roots = {merkle_root(leaves)}
    for i in range(n):
        roots.add(merkle_root([*leaves[:i], b"x", *leaves[i + 1 :]]))
        roots.add(merkle_root([*leaves[:i], *leaves[i + 1 :]]))
    assert len(roots) == 2 * n + 1
