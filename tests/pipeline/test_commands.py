"""What a person types to check, mend and choose versions of a volume."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from alignment.cli import app
from alignment.runs import load
from storage.publish import read_pointer
from storage.uri import local_path


@pytest.fixture
def volume(aligned_run, tmp_path):
    """A copy of the aligned phantom with its one published run."""
    source = local_path(load(aligned_run).volume_uri)
    key = aligned_run.rpartition("/")[2]
    target = tmp_path / "out.zarr"
    for name in ("LATEST.json", "zarr.json", f"runs/{key}"):
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (source / name).is_dir() else shutil.copy
        copy(source / name, place)
    return target


def petalign(*arguments):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_verify_finds_what_repair_mends(volume):
    clean = petalign("verify", volume, "--full")
    assert clean.exit_code == 0, clean.output
    assert "everything is as it was recorded" in clean.output
    assert "read and hashed" in clean.output

    key = read_pointer(str(volume)).run
    shard = volume / "runs" / key / "aligned/0/c/0/0/0"
    good = shard.read_bytes()
    shard.write_bytes(good[:-1])
    broken = petalign("verify", volume)
    assert broken.exit_code == 5
    assert "1 problem;" in broken.output
    assert "render/shards/m0_z0_y0_x0" in broken.output
    assert f"{len(good)} bytes" in broken.output

    shard.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    assert petalign("verify", volume).exit_code == 0  # sizes only
    assert petalign("verify", volume, "--full").exit_code == 5
    mended = petalign("repair", volume, "--workers", "1", "--json")
    assert mended.exit_code == 0, mended.output
    told = json.loads(mended.stdout)
    assert (told["units"], told["failed"], told["clean"]) == (
        ["render/shards/m0_z0_y0_x0"],
        [],
        True,
    )
    assert shard.read_bytes() == good


def test_versions_are_listed_and_a_roll_back_needs_one(volume):
    listed = json.loads(petalign("versions", volume, "--json").stdout)
    assert [(v["run"], v["current"], v["readable"]) for v in listed] == [
        (read_pointer(str(volume)).run, True, True)
    ]
    assert "readers see this" in petalign("versions", volume).output
    refused = petalign("rollback", volume)
    assert refused.exit_code == 3
    assert "no other published run" in refused.output
    assert petalign("rollback", volume, "--to", "77").exit_code == 3


def test_gc_keeps_what_is_published(volume):
    key = read_pointer(str(volume)).run
    shutil.copytree(volume / "runs" / key, volume / "runs" / "0123456789abcdef")
    planned = petalign("gc", volume, "--grace-days", "0", "--dry-run")
    assert planned.exit_code == 0
    assert "would delete  0123456789abcdef" in planned.output
    assert f"kept     {key}  it is published" in planned.output
    assert (volume / "runs" / "0123456789abcdef").exists()
    assert petalign("gc", volume, "--grace-days", "0").exit_code == 0
    assert [path.name for path in (volume / "runs").iterdir()] == [key]
    assert petalign("gc", volume, "--keep", "0").exit_code == 2


def test_a_place_without_a_run_is_said_to_be_one(tmp_path):
    nothing = petalign("verify", tmp_path)
    assert nothing.exit_code == 3
    assert "holds no run" in nothing.output
    assert "nothing was published yet" in petalign("versions", tmp_path).output
