"""What is missing, swapped or left over: an error that names it, or nobody sees it."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

import storage
from alignment.stages import repair as repair_stage
from storage import gc, store
from storage.commit.verify import verify_volume
from storage.errors import CorruptError, MissingError
from storage.publish import publish, read_pointer
from storage.uri import local_path
from storage.volume import open_array, read_region
from tests.faults import child, tiny, workload
from tests.faults.sweep import differences, snapshot


@pytest.fixture
def volume_uri(tmp_path):
    """A volume of two published tiny runs; run 1 is the present one."""
    uri = tmp_path.as_uri()
    for n in (0, 1):
        tiny.finish(uri, n)
        publish(uri, tiny.key_of(n))
    return uri


def file_of(volume_uri, n, path):
    return local_path(tiny.uri_of(volume_uri, n)) / path


def problems(volume_uri):
    return {(p.kind, p.path) for p in verify_volume(volume_uri, full=True, runs="all").problems}


def test_a_missing_shard_is_named_and_never_zeros(volume_uri):
    file_of(volume_uri, 1, tiny.path_of(1)).unlink()
    view = storage.open_aligned(volume_uri)
    with pytest.raises(MissingError, match="c/1/0/0"):
        view[1].to_numpy()
    np.testing.assert_array_equal(view[2], tiny.voxels(1, 2)[0])
    assert problems(volume_uri) == {("missing", tiny.path_of(1))}


def test_swapped_shards_are_found(volume_uri):
    """Each is whole and has good checksums; only its place is wrong."""
    first, second = (file_of(volume_uri, 1, tiny.path_of(z)) for z in (0, 1))
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)
    assert problems(volume_uri) == {("digest", tiny.path_of(0)), ("digest", tiny.path_of(1))}


def test_a_shard_of_another_run_is_found(volume_uri):
    shutil.copy(*(file_of(volume_uri, n, tiny.path_of(0)) for n in (0, 1)))
    assert problems(volume_uri) == {("digest", tiny.path_of(0))}


def test_an_object_that_nobody_planned_is_found(volume_uri):
    file_of(volume_uri, 1, "aligned/0/c/9").mkdir(parents=True)
    file_of(volume_uri, 1, "aligned/0/c/9/0").write_bytes(b"?")
    assert problems(volume_uri) == {("unexpected", "aligned/0/c/9/0")}


@pytest.mark.parametrize(
    "path",
    [
        f"commits/{tiny.STAGE}/{tiny.PHASE}/z000001.json",
        f"manifests/{tiny.STAGE}.jsonl",
        f"manifests/{tiny.STAGE}.json",
        "aligned/0/zarr.json",
        "aligned/zarr.json",
        "run.json",
    ],
)
@pytest.mark.parametrize("how", ["delete", "flip"])
def test_damaged_metadata_is_found(volume_uri, path, how):
    file = file_of(volume_uri, 1, path)
    data = bytearray(file.read_bytes())
    if how == "delete":
        file.unlink()
    else:
        place = next(i for i, c in enumerate(data) if chr(c).isdigit())
        data[place] ^= 1
        file.write_bytes(bytes(data))
    found = verify_volume(volume_uri, full=True, runs="all").problems
    assert found
    assert {p.run for p in found} == {tiny.key_of(1)}


def test_a_lost_pointer_is_found(volume_uri):
    local_path(store.join(volume_uri, "LATEST.json")).unlink()
    assert ("pointer", "LATEST.json") in problems(volume_uri)


@pytest.mark.parametrize("field", ["epoch", "run", "root"])
def test_a_changed_pointer_is_found(volume_uri, field):
    uri = store.join(volume_uri, "LATEST.json")
    value = store.read_json(uri)
    value[field] = {"epoch": 1, "run": tiny.key_of(0), "root": "0" * 64}[field]
    store.replace_json(uri, value)
    assert problems(volume_uri) != set()


def test_a_changed_version_is_found(volume_uri):
    uri = store.join(volume_uri, "versions/000001.json")
    value = store.read_json(uri)
    store.replace_json(uri, {**value, "run": tiny.key_of(1)})
    assert problems(volume_uri) != set()


def test_unfinished_copies_are_nobodys_business(volume_uri):
    """A killed process leaves them; no reader, no listing and no check sees them."""
    left = file_of(volume_uri, 1, f"aligned/0/c/1/0/.0.{'0' * 32}.partial")
    left.write_bytes(b"half")
    assert problems(volume_uri) == set()
    assert store.list_names(tiny.uri_of(volume_uri, 1) + "/aligned/0/c/1/0") == ["0"]
    tiny.finish(volume_uri, 2)
    publish(volume_uri, tiny.key_of(2))
    publish(volume_uri, tiny.key_of(0))
    assert tiny.key_of(1) in gc.collect(volume_uri, keep=1, grace_s=0.0).deleted
    assert not left.exists()
    assert read_pointer(volume_uri).run == tiny.key_of(0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of the real stages, on disk."""
    source = workload.write_source(tmp_path_factory.mktemp("source") / "raw.tif")
    root = tmp_path_factory.mktemp("run").as_uri()
    ended = child.start(workload.ours, source, root, environment={}).wait()
    assert ended.success, ended.error
    return root


DAMAGED = (
    "sections/0/c/0/0/0",
    "sections/1/c/1/0/0",
    "valid/c/0/0/0",
    "sections/0/zarr.json",
    "defects/zarr.json",
    "commits/masks/sections/z000001.json",
    "manifests/ingest.jsonl",
    "manifests/masks.json",
)


@pytest.mark.parametrize("path", DAMAGED)
@pytest.mark.parametrize(
    "how", ["flip", "delete", pytest.param("truncate", marks=pytest.mark.slow)]
)
def test_the_stages_mend_what_is_damaged(finished, tmp_path, monkeypatch, path, how):
    root = (tmp_path / "volume").as_uri()
    shutil.copytree(local_path(finished), tmp_path / "volume")
    monkeypatch.setattr(repair_stage, "run_blocks", workload.one_after_the_other)
    wanted = snapshot(finished)
    file = local_path(workload.run_uri_of(root)) / path
    data = file.read_bytes()
    if how == "delete":
        file.unlink()
    elif how == "truncate":
        file.write_bytes(data[: len(data) // 3])
    else:
        place = len(data) // 2
        file.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    report = verify_volume(root, full=True, runs="all")
    kinds = {p.kind for p in report.problems}
    assert path in {p.path for p in report.problems} or "manifest" in kinds
    done = repair_stage.repair(report, None)
    assert done.failed == []
    assert differences(snapshot(root), wanted) == ""
    assert verify_volume(root, full=True, runs="all").problems == ()


def test_reading_past_damage_is_an_error_until_it_is_mended(finished):
    run_uri = workload.run_uri_of(finished)
    file = local_path(run_uri) / "sections/0/c/0/0/0"
    data = file.read_bytes()
    file.write_bytes(data[:-1] + bytes([data[-1] ^ 128]))
    array = open_array(run_uri, "sections/0")
    region = (slice(0, 1), *(slice(0, n) for n in array.shape[1:]))
    with pytest.raises(CorruptError, match="sections/0"):
        read_region(array, region)
    file.write_bytes(data)
    assert read_region(array, region).shape == (1, *array.shape[1:])
