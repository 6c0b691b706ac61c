from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from storage import durable, store
from storage.errors import UnavailableError


def test_data_and_name_are_on_disk_when_a_create_returns(tmp_path, monkeypatch):
    """The file before it has its name, then each folder on the way that is new, then the name."""
    order = []
    real = os.fsync

    def noting(handle: int) -> None:
        order.append(str(Path(f"/proc/self/fd/{handle}").readlink()).removeprefix(str(tmp_path)))
        real(handle)

    monkeypatch.setattr(os, "fsync", noting)
    durable.create(tmp_path / "a" / "b" / "unit.json", b"{}")
    assert order[:2] == ["", "/a"]
    assert order[2].startswith("/a/b/.unit.json.")
    assert order[3] == "/a/b"
    assert len(order) == 4


def test_a_full_disk_leaves_no_name_and_no_copy(tmp_path, monkeypatch):
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UnavailableError, match=r"unit\.json: the disk is full"):
        store.create_bytes(f"{tmp_path}/unit.json", b"{}")
    assert list(tmp_path.iterdir()) == []


def test_a_failing_disk_is_never_a_success(tmp_path, monkeypatch):
    """The name may be visible already; that it looks right does not mean that it will last."""
    real = os.fsync
    calls = []

    def fail_on_the_folder(handle: int) -> None:
        calls.append(handle)
        if len(calls) == 2:
            raise OSError(errno.EIO, "Input/output error")
        real(handle)

    monkeypatch.setattr(os, "fsync", fail_on_the_folder)
    with pytest.raises(UnavailableError, match="Input/output error"):
        store.create_bytes(f"{tmp_path}/unit.json", b"{}")


def test_without_hard_links_creating_is_still_exclusive(tmp_path, monkeypatch):
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    durable.create(tmp_path / "unit", b"first")
    with pytest.raises(FileExistsError):
        durable.create(tmp_path / "unit", b"second")
    assert (tmp_path / "unit").read_bytes() == b"first"
    assert store.list_names(str(tmp_path)) == ["unit"]


WRITER = """
import sys
from storage import store
for i in range(10_000):
    store.create_bytes(f"{sys.argv[1]}/{i}", bytes([i % 256]) * 300_000)
    store.replace_json(f"{sys.argv[1]}/state.json", {"done": i, "pad": "x" * 10_000})
"""


def test_kill_9_leaves_whole_objects_only(tmp_path):
    for attempt in range(4):
        folder = tmp_path / str(attempt)
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(folder)])
        try:
            deadline = time.monotonic() + 20
            while not (folder / f"{3 + attempt}").exists() and time.monotonic() < deadline:
                time.sleep(0.002)
        finally:
            writer.send_signal(signal.SIGKILL)
            writer.wait()
        names = store.list_names(str(folder))
        assert "state.json" in names
        state = store.read_json(f"{folder}/state.json")
        units = sorted(int(name) for name in names if name != "state.json")
        assert units == list(range(len(units)))
        assert state["done"] in (len(units) - 1, len(units) - 2)
        for unit in units:
            assert store.read_bytes(f"{folder}/{unit}") == bytes([unit % 256]) * 300_000


def test_a_lock_dies_with_its_process(tmp_path):
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path; from storage import durable\n"
            "with durable.locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)",
            str(tmp_path / "LATEST.json"),
        ],
        stdout=subprocess.PIPE,
    )
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    holder.kill()
    holder.wait()
    holder.stdout.close()
    start = time.monotonic()
    assert durable.swap(tmp_path / "LATEST.json", b"{}", None)
    assert time.monotonic() - start < 5
