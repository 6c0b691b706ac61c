"""The errands about a real volume, driven as on a cluster: state and result are left behind."""

import shutil

import pytest

from alignment.errands.drive import place_of, run
from alignment.runs import load
from storage import ledger
from storage.commit.verify import verify_volume
from storage.publish import read_pointer
from storage.store import join, read_json
from storage.uri import local_path


@pytest.fixture
def volume(aligned_run, tmp_path):
    """A copy of the aligned phantom, to be damaged."""
    folder = tmp_path / "out.zarr"
    shutil.copytree(local_path(load(aligned_run).volume_uri), folder)
    return folder.as_uri()


@pytest.fixture
def scrub(volume, cluster):
    """Return a function that verifies on the cluster; it gives state and result."""

    def scrub(**settings):
        arguments = {"full": True, "every_run": False, "repair": False} | settings
        cluster.submit(run, "verify", volume, arguments, pure=False).result(timeout=120)
        state = ledger.read_state(place_of(volume), "verify")
        try:
            return state, read_json(join(place_of(volume), "verify.json"))
        except FileNotFoundError:
            return state, None

    return scrub


def flip(volume, count=2):
    """Damage a byte in some shards; return their paths below the volume."""
    folder = local_path(volume)
    shards = sorted(path for path in folder.rglob("aligned/0/c/**/*") if path.is_file())[:count]
    for path in shards:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    return [str(path.relative_to(folder)) for path in shards]


def test_a_sound_volume_is_said_to_be_so(volume, scrub):
    state, found = scrub()
    assert (state.status, state.error) == ("done", None)
    assert state.blocks_done == state.blocks_total > 100, "its progress is told"
    assert found["checked"]["problems"] == []
    assert found["checked"]["objects"] == verify_volume(volume, full=True).objects


def test_damage_is_listed_object_by_object_and_left_alone(volume, scrub):
    damaged = flip(volume)
    state, found = scrub()
    assert (state.status, state.error_kind) == ("failed", "data")
    assert "2 damaged objects" in state.error
    assert all(any(path in line for line in found["checked"]["problems"]) for path in damaged)
    assert found["mended"] is None
    assert len(verify_volume(volume, full=True).problems) == 2


def test_sizes_alone_do_not_show_a_flipped_bit(volume, scrub):
    flip(volume)
    state, found = scrub(full=False)
    assert (state.status, found["checked"]["full"]) == ("done", False)


def test_what_is_mended_is_looked_at_again(volume, scrub):
    flip(volume)
    state, found = scrub(repair=True)
    assert state.status == "done"
    assert (len(found["checked"]["problems"]), found["after"]["problems"]) == (2, [])
    assert len(found["mended"]["units"]) == 2
    assert verify_volume(volume, full=True).problems == ()


def test_what_cannot_be_mended_stays_red(volume, scrub):
    (local_path(load_uri(volume)) / "run.json").unlink()
    state, found = scrub(repair=True)
    assert state.status == "failed"
    assert "mending did not help" in state.error
    assert len(found["mended"]["failed"]) == len(found["after"]["problems"]) > 0


def load_uri(volume):
    return join(volume, "runs", read_pointer(volume).run)


def test_a_volume_without_a_run_is_an_error_and_leaves_no_old_result(tmp_path, scrub, volume):
    scrub()
    shutil.rmtree(local_path(volume) / "runs")
    for name in ("LATEST.json", "versions"):
        path = local_path(volume) / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    state, found = scrub()
    assert (state.status, state.error_kind, found) == ("failed", "data", None)
    assert "holds no run" in state.error
