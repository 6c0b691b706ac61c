from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from alignment.commands import fs
from alignment.commands.fs import app, keys_of_box, parse_box
from alignment.errors import ConfigError
from storage.grid import Box
from storage.volume import create_array, write

SHAPE = (4, 96, 96)


@pytest.fixture
def volume(tmp_path):
    made = create_array(
        str(tmp_path / "volume"), "aligned/0", shape=SHAPE, chunk=(4, 16, 16), shard=(4, 32, 32),
        dtype=np.uint8, fill_value=0, dimension_names=("z", "y", "x"),
    )  # fmt: skip
    write(
        made, Box((0, 0, 0), SHAPE, 0), np.random.default_rng(0).integers(0, 255, SHAPE, np.uint8)
    )
    return tmp_path / "volume"


def _run(*arguments: object):
    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_sync_copies_and_says_what_it_did(volume, tmp_path):
    first = _run("sync", volume, tmp_path / "copy")
    assert first.exit_code == 0, first.output
    assert "10 files copied" in first.output
    assert "10 were there" in _run("sync", volume, tmp_path / "copy").output
    voxels = zarr.open_array(tmp_path / "copy/aligned/0", mode="r")[:]
    np.testing.assert_array_equal(voxels, zarr.open_array(volume / "aligned/0", mode="r")[:])


def test_sync_of_a_box_copies_its_shards_and_the_metadata(volume, tmp_path):
    keys = keys_of_box(str(volume), "aligned/0", Box((0, 40, 0), (1, 41, 33), 0))
    assert sorted(keys) == ["aligned/0/c/0/1/0", "aligned/0/c/0/1/1", "aligned/0/zarr.json"]
    result = _run(
        "sync", volume, tmp_path / "copy", "--array", "aligned/0", "--box", "0:1,40:41,0:33"
    )
    assert "3 files copied" in result.output
    part = zarr.open_array(tmp_path / "copy/aligned/0", mode="r")[:, 32:64, 0:64]
    np.testing.assert_array_equal(
        part, zarr.open_array(volume / "aligned/0", mode="r")[:, 32:64, 0:64]
    )


def test_what_is_wrong_with_a_box_is_said(volume, tmp_path):
    assert _run("sync", volume, tmp_path / "copy", "--box", "0:1,0:1,0:1").exit_code == 2
    with pytest.raises(ConfigError, match="z0:z1"):
        parse_box("0:1,3")


def test_mount_says_what_to_do_without_fuse(volume, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.setitem(sys.modules, "mfusepy", None)
    result = _run("mount", volume, tmp_path / "here")
    assert result.exit_code == 2
    assert "petalign fs sync" in result.output
    (tmp_path / "here/full").touch()
    assert "not an empty folder" in _run("mount", volume, tmp_path / "here").output


def _can_mount() -> str | None:
    if not Path("/dev/fuse").exists():
        return "there is no /dev/fuse"
    try:
        import mfusepy  # noqa: F401
    except (ImportError, OSError) as error:
        return f"mfusepy cannot be used: {error}"
    if shutil.which("fusermount3") is None and shutil.which("fusermount") is None:
        return "there is no fusermount"
    return None


@pytest.fixture
def mounted(volume, tmp_path):
    """Mount the volume in a process of its own, through a cache."""
    reason = _can_mount()
    if reason is not None:
        pytest.skip(f"FUSE: {reason}")
    folder = tmp_path / "mounted"
    folder.mkdir()
    program = "import sys; from alignment.commands.fs import app; app(sys.argv[1:])"
    command = [sys.executable, "-c", program, "mount", str(volume), str(folder)]
    command += ["--cache", str(tmp_path / "cache"), "--cache-bytes", "50MB", "--listing-s", "0"]
    server = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=Path(fs.__file__).parents[2]
    )
    deadline = time.monotonic() + 30
    while not os.path.ismount(folder) and server.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    if not os.path.ismount(folder):
        server.kill()
        output = server.communicate()[0].decode()
        if "permitted" in output or "permission" in output.lower():
            pytest.skip(f"FUSE: this machine does not let us mount: {output.strip()[-200:]}")
        pytest.fail(f"not mounted: {output}")
    yield folder
    tool = shutil.which("fusermount3") or shutil.which("fusermount")
    subprocess.run([tool, "-u", str(folder)], check=True)
    assert server.wait(20) == 0
    assert server.stdout is not None
    server.stdout.close()


def test_an_unmodified_program_reads_a_mounted_volume(mounted, volume):
    assert subprocess.run(["diff", "-r", str(volume), str(mounted)], check=False).returncode == 0
    voxels = zarr.open_array(mounted / "aligned/0", mode="r")[:]
    np.testing.assert_array_equal(voxels, zarr.open_array(volume / "aligned/0", mode="r")[:])


def test_a_mounted_volume_cannot_be_written(mounted):
    with pytest.raises(OSError, match="Read-only"):
        (mounted / "new").write_bytes(b"x")
    with pytest.raises(OSError, match=r"Read-only|Permission"):
        (mounted / "aligned/0/zarr.json").write_bytes(b"x")
    with pytest.raises(FileNotFoundError):
        (mounted / "absent").read_bytes()


def test_a_mounted_file_that_is_replaced_is_seen_anew(mounted, volume):
    new = volume / "notes.txt"
    new.write_text("first")
    assert (mounted / "notes.txt").read_text() == "first"
    time.sleep(1.1)  # the kernel believes attributes for a second
    new.write_text("second, longer")
    assert (mounted / "notes.txt").read_text() == "second, longer"
