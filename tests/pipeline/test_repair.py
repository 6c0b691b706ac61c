"""What is damaged is found, computed again, and is what it was, byte for byte."""

import os
import random
import shutil
from pathlib import Path

import pytest

from alignment.runs import load
from alignment.stages import ORDER, run_stage
from alignment.stages.repair import repair
from storage import open_aligned, store
from storage.commit import manifest, records
from storage.commit.verify import verify_volume
from storage.errors import CorruptError
from storage.publish import read_pointer
from storage.uri import local_path


@pytest.fixture
def volume(aligned_run):
    """The aligned phantom, to be damaged: the files of its run are put back afterwards."""
    volume_uri = load(aligned_run).volume_uri
    folder = local_path(volume_uri)
    backup = folder.with_name("backup")
    shutil.copytree(folder, backup)
    yield volume_uri
    shutil.rmtree(folder)
    shutil.copytree(backup, folder)
    shutil.rmtree(backup)


def tree(volume_uri):
    """All objects of a volume but what reports and heartbeats write anew."""
    folder = local_path(volume_uri)
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and "/state/" not in str(path)
    }


def run_folder(volume_uri) -> Path:
    return local_path(store.join(volume_uri, "runs", read_pointer(volume_uri).run))


def test_a_finished_volume_is_clean_and_every_object_has_a_record(volume):
    report = verify_volume(volume, full=True)
    assert report.problems == ()
    stages = manifest.sealed_stages(run_folder(volume).as_uri())
    assert stages == set(ORDER) - {"publish"}
    objects = [path for path in tree(volume) if "/c/" in path]
    assert len(objects) > 100
    assert report.objects > len(objects)


@pytest.mark.parametrize("seed", range(3))
def test_damage_of_every_kind_is_found_named_and_mended(volume, cluster, seed):
    before = tree(volume)
    rng = random.Random(seed)
    shards = sorted(path for path in before if "/c/" in path)
    victims = rng.sample(shards, 12)
    folder = local_path(volume)
    for i, name in enumerate(victims):
        path = folder / name
        data = bytearray(path.read_bytes())
        if i % 3 == 0:
            path.unlink()
        elif i % 3 == 1:
            path.write_bytes(data[: rng.randrange(len(data))])
        else:
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            path.write_bytes(data)
    report = verify_volume(volume, full=True)
    found = sorted(f"runs/{problem.run}/{problem.path}" for problem in report.problems)
    assert found == sorted(victims)
    assert {problem.kind for problem in report.problems} == {"missing", "size", "digest"}
    assert all(problem.unit for problem in report.problems)

    repairs = repair(report, cluster)
    assert repairs.failed == []
    assert verify_volume(volume, full=True).problems == ()
    assert tree(volume) == before


def test_swapped_shards_are_found_though_each_checksum_holds(volume, cluster):
    before = tree(volume)
    folder = run_folder(volume) / "aligned/0/c/0/0"
    first, second = sorted(path for path in folder.iterdir() if not path.name.startswith("."))[:2]
    contents = first.read_bytes(), second.read_bytes()
    first.write_bytes(contents[1])
    second.write_bytes(contents[0])
    with pytest.raises(CorruptError, match="is not the object that the run recorded at this place"):
        open_aligned(volume).compute()
    report = verify_volume(volume, full=True)
    assert {problem.stage for problem in report.problems} == {"render"}
    assert len(report.problems) == 2
    assert repair(report, cluster).failed == []
    assert tree(volume) == before


def test_records_metadata_and_manifests_are_mended_too(volume, cluster):
    before = tree(volume)
    run = run_folder(volume)
    (run / "commits/masks/sections/z000002.json").unlink()
    (run / "commits/match/round0").joinpath(
        sorted(p.name for p in (run / "commits/match/round0").glob("*.json"))[0]
    ).write_text("{}")
    (run / "aligned/0/zarr.json").write_text("{}")
    (run / "manifests/filter.jsonl").write_bytes(b"\n")
    (run / "manifests/relax.json").unlink()
    (run / "manifests/tails/aligned/0").unlink()
    (run / "aligned/0/c/stray").write_bytes(b"nobody wrote this")
    report = verify_volume(volume, full=True)
    kinds = {problem.kind for problem in report.problems}
    assert kinds >= {"record", "manifest", "unexpected"}
    repairs = repair(report, cluster)
    assert repairs.failed == []
    assert verify_volume(volume, full=True).problems == ()
    assert tree(volume) == before


def test_a_source_that_changed_since_is_not_let_in(volume, cluster, phantom):
    run_uri = run_folder(volume).as_uri()
    (run_folder(volume) / "sections/0/c/0/0/0").unlink()
    source = local_path(phantom)
    shards = [p for p in source.rglob("*") if p.is_file() and "/0/c/" in str(p)]
    kept = {p: (p.read_bytes(), p.stat()) for p in shards}
    try:
        contents = [p.read_bytes() for p in shards]
        for p, other in zip(shards, [*contents[1:], contents[0]], strict=True):
            p.write_bytes(other)
        repairs = repair(verify_volume(volume, full=True), cluster)
        assert len(repairs.failed) == 1
        assert "ConflictError" in repairs.failed[0]
        assert "ingest/sections/z000000" in repairs.failed[0]
    finally:
        for p, (data, stat) in kept.items():
            p.write_bytes(data)
            os.utime(p, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert load(run_uri).key == read_pointer(volume).run


def test_a_run_whose_definition_is_gone_says_so(volume, cluster):
    (run_folder(volume) / "run.json").write_text("{}")
    report = verify_volume(volume)
    assert [problem.kind for problem in report.problems] == ["run"]
    repairs = repair(report, cluster)
    assert len(repairs.failed) == 1
    assert "restore run.json from a backup" in repairs.failed[0]


def test_a_mended_run_resumes_without_doing_anything(volume, cluster):
    run_uri = run_folder(volume).as_uri()
    done = records.recorded(run_uri, "render", "shards")
    assert run_stage("render", run_uri, cluster) == len(done)
    assert verify_volume(volume, full=True).problems == ()


def test_a_stage_said_to_be_done_that_is_not_is_found_and_sealed(volume, cluster):
    before = tree(volume)
    (run_folder(volume) / "manifests/coarse.json").unlink()
    (run_folder(volume) / "manifests/coarse.jsonl").unlink()
    report = verify_volume(volume)
    assert any("said to be done" in problem.expected for problem in report.problems)
    assert repair(report, cluster).failed == []
    assert verify_volume(volume, full=True).problems == ()
    assert tree(volume) == before


def test_readers_refuse_metadata_and_seals_that_were_changed(volume):
    run = run_folder(volume)
    open_aligned(volume).isel(z=0).compute()
    kept = (run / "aligned/0/zarr.json").read_bytes()
    (run / "aligned/0/zarr.json").write_bytes(kept.replace(b'"fill_value": 0', b'"fill_value": 7'))
    with pytest.raises(CorruptError, match=r"zarr\.json is not what the run was sealed with"):
        open_aligned(volume)
    (run / "aligned/0/zarr.json").write_bytes(kept)
    seal = run / "manifests/match.json"
    seal.write_bytes(seal.read_bytes().replace(b'"objects": ', b'"objects": 1'))
    with pytest.raises(CorruptError, match="but was published with"):
        open_aligned(volume)
