"""Flipped bits in what is no shard: run.json, zarr.json, records, manifests, the pointer.

A run's metadata is JSON, where a flipped bit can give another number instead of nonsense.
"""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from alignment.errors import AlignmentError
from alignment.runs import load
from alignment.stages import inputs
from storage import store
from storage.commit import manifest, records
from storage.commit.verify import verify_volume
from storage.errors import CorruptError, StorageError
from storage.uri import local_path
from storage.volume import open_array
from tests.faults import child, workload
from tests.faults.verdict import equal_voxels

FLIPS = 120


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run on disk."""
    source = workload.write_source(tmp_path_factory.mktemp("source") / "raw.tif")
    root = tmp_path_factory.mktemp("run").as_uri()
    ended = child.start(workload.ours, source, root, environment={}).wait()
    assert ended.success, ended.error
    return root


@pytest.fixture
def run_uri(finished, tmp_path):
    """A copy of it that may be damaged."""
    shutil.copytree(local_path(finished), tmp_path / "volume")
    return workload.run_uri_of((tmp_path / "volume").as_uri())


def flip_each(path: Path, look, seed: int) -> Counter[str]:
    """Flip one bit of a file at a time; count what `look` made of it."""
    good = path.read_bytes()
    random = np.random.default_rng(seed)
    golden, found = look(), Counter()
    wrong = []
    for _ in range(FLIPS):
        bad = bytearray(good)
        place, bit = int(random.integers(len(bad))), int(random.integers(8))
        bad[place] ^= 1 << bit
        path.write_bytes(bad)
        try:
            same = look() == golden
        except (StorageError, AlignmentError):
            found["noticed"] += 1
        else:
            found["same" if same else "wrong"] += 1
            if not same:
                wrong.append(bytes(bad[max(place - 30, 0) : place + 10]))
    path.write_bytes(good)
    assert found["wrong"] == 0, wrong[:5]
    return found


def test_a_run_that_was_changed_is_not_run(run_uri):
    def look():
        load.cache_clear()
        run = load(run_uri)
        return run.config, run.shape, run.section_names, run.resolution_nm, run.source_uri

    assert flip_each(local_path(run_uri) / "run.json", look, 1)["noticed"] > FLIPS / 2


@pytest.mark.parametrize("array", ["sections/0", "valid"])
def test_an_array_whose_metadata_was_changed_is_not_read_wrongly(run_uri, array):
    def look():
        data = inputs.read_all(open_array(run_uri, array))
        return data.shape, str(data.dtype), data.tobytes()

    assert flip_each(local_path(run_uri) / array / "zarr.json", look, 2)["noticed"] > 0


def test_a_record_that_was_changed_is_not_believed(run_uri):
    def look():
        return records.read_commit(run_uri, "masks", "sections", "z000001")

    path = local_path(run_uri) / "commits/masks/sections/z000001.json"
    assert flip_each(path, look, 3)["noticed"] > 0


def test_a_manifest_that_was_changed_is_not_believed(run_uri):
    def look():
        return manifest.read_lines(run_uri, "masks")

    for name in ("masks.jsonl", "masks.json"):
        found = flip_each(local_path(run_uri) / "manifests" / name, look, 4)
        assert found["noticed"] > 0


def test_a_seal_that_was_changed_is_found(run_uri):
    """Nothing else states the seal of a run that is not published yet."""

    def look():
        problems = verify_volume(run_uri.rpartition("/runs/")[0], runs="all").problems
        if problems:
            raise CorruptError(str(problems[0]))

    found = flip_each(local_path(run_uri) / "manifests/masks.json", look, 5)
    assert found["same"] == 0


def test_the_golden_run_is_read_as_it_was_written(finished):
    voxels = workload.our_voxels(finished)
    assert equal_voxels(voxels, workload.our_voxels(finished))
    assert store.list_names(finished) == ["runs"]
