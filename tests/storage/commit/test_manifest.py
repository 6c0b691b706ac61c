from __future__ import annotations

import pytest

from storage import store
from storage.commit import manifest, records, tails
from storage.commit.merkle import merkle_root
from storage.commit.records import objects_of
from storage.errors import ConflictError, CorruptError, MissingError
from storage.journal import journal


def write_unit(run_uri, unit, data=b"voxels", path="x"):
    with journal() as noted:
        store.create_bytes(f"{run_uri}/{path}/{unit}", data)
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
    manifest.check(root, "masks")
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


def test_the_tails_of_an_array_say_which_object_belongs_where(root):
    with journal() as noted:
        for place, data in {"0/0": b"aaaa", "1/2": b"xxbbbb", "1/0": b"cccc"}.items():
            store.create_bytes(f"{root}/aligned/0/c/{place}", data)
        store.create_bytes(f"{root}/aligned/0/zarr.json", b"{}")
    objects = objects_of(noted.written, root)
    records.record(root, "render", "shards", "a", {}, objects=objects)
    sealed = manifest.seal(root, "render", {"shards": ["a"]})
    assert list(sealed.metadata) == ["aligned/0/zarr.json"]
    stated = sealed.tails["aligned/0"]
    assert stated.grid == (2, 3)
    placed = tails.read(root, "aligned/0", stated)
    assert [placed.at(p) for p in [(0, 0), (1, 2), (1, 0)]] == [b"aaaa", b"bbbb", b"cccc"]
    assert placed.at((2, 0)) is None
    assert placed.at((0,)) is None
    uri = store.join(root, tails.path_of("aligned/0"))
    store.replace_bytes(uri, store.read_bytes(uri)[::-1])
    with pytest.raises(CorruptError, match="is not what its seal says"):
        manifest.check(root, "render")
    for uri in manifest.uris_of(root, "render", {"shards": ["a"]}):
        store.delete(uri)
    assert manifest.seal(root, "render", {"shards": ["a"]}) == sealed
    manifest.check(root, "render")
