from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from storage import store
from storage.cache import mirror as module
from storage.cache.mirror import JOURNAL, mirror
from storage.cache.origin import Part, S3Origin
from storage.errors import ConflictError, CorruptError, MissingError, UriError

KEYS = ["zarr.json", "0/c/0/0", "0/c/0/1", "1/c/0", "empty"]


@pytest.fixture
def source(root):
    rng = np.random.default_rng(0)
    for key in KEYS:
        store.create_bytes(store.join(root, key), rng.bytes(0 if key == "empty" else 50_000))
    return root


def _same(source: str, folder: Path, keys=KEYS) -> bool:
    found = {f.relative_to(folder).as_posix() for f in folder.rglob("*") if f.is_file()}
    assert found == {*keys, JOURNAL}
    return all((folder / k).read_bytes() == store.read_bytes(store.join(source, k)) for k in keys)


def test_a_prefix_arrives_whole_and_the_second_time_nothing_is_fetched(source, tmp_path):
    folder = tmp_path / "copy"
    first = mirror(source, folder)
    assert (first.copied, first.kept, first.bytes) == (5, 0, 200_000)
    assert _same(source, folder)
    second = mirror(source, folder)
    assert (second.copied, second.kept) == (0, 5)
    assert mirror(source, folder, recheck=True).kept == 5


def test_what_changed_on_either_side_is_fetched_again(source, tmp_path):
    folder = tmp_path / "copy"
    mirror(source, folder)
    store.replace_bytes(store.join(source, "1/c/0"), b"new")
    (folder / "0/c/0/0").unlink()
    (folder / "zarr.json").write_bytes(b"short")
    assert mirror(source, folder).copied == 3
    assert _same(source, folder)
    content = bytearray((folder / "0/c/0/1").read_bytes())
    content[7] ^= 1
    (folder / "0/c/0/1").write_bytes(content)
    assert mirror(source, folder).copied == 0, "size and version are as they were"
    assert mirror(source, folder, recheck=True).copied == 1
    assert _same(source, folder)


def test_only_the_keys_that_were_asked_for(source, tmp_path):
    mirror(source, tmp_path / "copy", keys=["0/c/0/0", "zarr.json"])
    assert _same(source, tmp_path / "copy", ["0/c/0/0", "zarr.json"])
    with pytest.raises(MissingError):
        mirror(source, tmp_path / "copy", keys=["0/c/9/9"])


def test_a_torn_journal_costs_one_copy(source, tmp_path):
    folder = tmp_path / "copy"
    mirror(source, folder)
    journal = folder / JOURNAL
    journal.write_bytes(journal.read_bytes()[:-9])
    assert mirror(source, folder).copied == 1
    assert mirror(source, folder).copied == 0
    assert [json.loads(line)["size"] for line in journal.read_text().splitlines()[-1:]]


@pytest.mark.parametrize("key", ["../out", "/etc/cron.d/x", "a/../../out", "a//b", JOURNAL])
def test_keys_that_leave_the_folder_are_refused(source, tmp_path, monkeypatch, key):
    monkeypatch.setattr(module.store, "walk", lambda uri: iter([(key, 3, "tag")]))
    with pytest.raises(UriError):
        mirror(source, tmp_path / "copy")
    assert not (tmp_path / "out").exists()


def test_a_link_in_the_folder_that_leads_out_is_refused(source, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    (tmp_path / "elsewhere").mkdir()
    (folder / "0").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UriError, match="link"):
        mirror(source, folder)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_two_copies_into_one_folder_exclude_each_other(source, tmp_path):
    with module._journal(_made(tmp_path / "copy")), pytest.raises(ConflictError, match="another"):
        mirror(source, tmp_path / "copy")


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _flipping(monkeypatch, times: int) -> list[int]:
    """Let the first reads of an S3 object arrive with a flipped bit."""
    real, flips = S3Origin.read, []

    def read(self, start, stop, tag=None, limit=None):
        part = real(self, start, stop, tag, limit)
        if len(flips) < times and part.data.size:
            flips.append(start)
            data = part.data.copy()
            data[len(flips)] ^= 1
            return Part(data, part.start, part.version)
        return part

    monkeypatch.setattr(S3Origin, "read", read)
    return flips


def test_a_flipped_bit_on_the_way_is_fetched_again(s3_root, tmp_path, monkeypatch):
    store.create_bytes(store.join(s3_root, "a"), b"x" * 1000)
    assert _flipping(monkeypatch, 1) == []
    assert mirror(s3_root, tmp_path / "copy").copied == 1
    assert _same(s3_root, tmp_path / "copy", ["a"])


def test_damage_that_stays_is_an_error_and_leaves_no_file(s3_root, tmp_path, monkeypatch):
    store.create_bytes(store.join(s3_root, "a"), b"x" * 1000)
    _flipping(monkeypatch, 2)
    with pytest.raises(CorruptError, match="damaged"):
        mirror(s3_root, tmp_path / "copy")
    assert _same(s3_root, tmp_path / "copy", [])


def test_a_run_is_verified_by_its_manifests(tmp_path, monkeypatch):
    """A flipped bit at rest has the right size and time, but not the recorded blake3."""
    from storage.commit import manifest, records
    from storage.journal import digest_of

    run = f"file://{tmp_path}/volume/runs/abc"
    store.create_bytes(f"{run}/aligned/0/c/0", b"y" * 1000)
    found = records.StoredObject("aligned/0/c/0", 1000, "00000000", digest_of(b"y" * 1000))
    manifest.seal(run, "render", {}, [found])
    assert mirror(f"{run}/aligned", tmp_path / "good").unverified == 0
    (tmp_path / "volume/runs/abc/aligned/0/c/0").write_bytes(b"y" * 999 + b"z")
    with pytest.raises(CorruptError, match="verify"):
        mirror(f"{run}/aligned", tmp_path / "bad")


def test_a_copy_that_was_killed_goes_on(root, tmp_path):
    if not root.startswith("file:"):
        pytest.skip("one kind of storage is enough for killing")
    keys = [f"c/{n}" for n in range(400)]
    for key in keys:
        store.create_bytes(store.join(root, key), os.urandom(30_000))
    folder = tmp_path / "copy"
    program = (
        f"import sys; sys.path[:0] = {[str(Path(__file__).parents[3])]!r}\n"
        f"from storage.cache.mirror import mirror\n"
        f"mirror({root!r}, {str(folder)!r}, workers=2, tell=lambda n, b: print(n, flush=True))"
    )
    copier = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert copier.stdout is not None
    for _ in range(20):
        copier.stdout.readline()
    os.kill(copier.pid, signal.SIGKILL)
    copier.wait()
    copier.stdout.close()
    done = mirror(root, folder, recheck=True)
    assert done.kept >= 15
    assert done.copied + done.kept == 400
    assert _same(root, folder, keys)
