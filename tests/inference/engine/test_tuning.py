"""What was measured is kept, and survives what happens to files."""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import pytest

from inference import native
from inference.engine import tuning
from inference.engine.choices import Work, candidates
from inference.engine.engine import Engine, Settings
from inference.engine.tuning import Tuner
from tests.inference.engine.samples import sample
from tests.inference.engine.test_passes import residual_net


def _work(lanes, inputs=5):
    return Work(inputs, 6, (1, 3, 3), (1, 1, 1), (2, 20, 24), lanes, False, True, "elu")


def _best(folder, inputs=5):
    """Choose in a new process's tuner; return the choice, and how many were measured."""
    isa = native.widest()
    library = native.library(isa)
    work = _work(library.petalign_engine_lanes(), inputs)
    tuner = Tuner(isa, library, folder)
    return tuner.best(work, candidates(work, is_strict=False)), tuner.measured


def test_it_measures_once(tmp_path):
    first, measured = _best(tmp_path)
    assert measured == 1
    assert _best(tmp_path) == (first, 0)
    assert _best(tmp_path, inputs=6)[1] == 1
    assert len(list(tmp_path.iterdir())) == 2


def test_what_strict_sums_measured_is_not_for_others(tmp_path):
    first, _ = _best(tmp_path)
    isa = native.widest()
    library = native.library(isa)
    work = _work(library.petalign_engine_lanes())
    strict = Tuner(isa, library, tmp_path)
    assert strict.best(work, candidates(work, is_strict=True)).kernel == "direct"
    assert strict.measured == 1
    assert _best(tmp_path) == (first, 0)


@pytest.mark.parametrize("damage", ["truncated", "empty", "foreign", "no choice", "not json"])
def test_a_damaged_entry_is_measured_again(tmp_path, damage):
    _best(tmp_path)
    (entry,) = tmp_path.iterdir()
    whole = entry.read_text()
    other = json.loads(whole)
    if damage == "no choice":
        other["choice"]["pixels"] = 7
    other["of"]["isa"] = other["of"]["isa"] if damage == "no choice" else "another"
    written = {
        "truncated": whole[:-20],
        "empty": "",
        "foreign": json.dumps(other),
        "no choice": json.dumps(other),
        "not json": "[1]",
    }
    entry.write_text(written[damage])
    again, measured = _best(tmp_path)
    assert measured == 1
    lanes = native.library(native.widest()).petalign_engine_lanes()
    assert again in candidates(_work(lanes), is_strict=False)
    assert _best(tmp_path) == (again, 0)


def test_another_machine_measures_anew(tmp_path, monkeypatch):
    _best(tmp_path)
    monkeypatch.setattr(tuning, "_machine", lambda: "another")
    assert _best(tmp_path)[1] == 1


def test_eight_processes_may_measure_at_once(tmp_path):
    with ProcessPoolExecutor(8, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(_best, [tmp_path] * 8))
    assert len(found) == 8
    (entry,) = tmp_path.iterdir()  # nothing half-written is left
    assert json.loads(entry.read_text())["choice"] in [choice.as_json() for choice, _ in found]
    assert _best(tmp_path)[1] == 0


def _measure_on(folder):
    for inputs in range(1, 1000):
        _best(folder, inputs)


def test_processes_may_be_killed_while_they_measure(tmp_path):
    spawn = get_context("spawn")
    for wanted in (1, 3, 5):
        process = spawn.Process(target=_measure_on, args=(tmp_path,))
        process.start()
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("*.json"))) < wanted and time.monotonic() < deadline:
            time.sleep(0.001)
        process.kill()
        process.join()
    entries = list(tmp_path.glob("*.json"))
    assert len(entries) >= wanted
    for entry in entries:  # whole, each of them
        assert json.loads(entry.read_text())["seconds"] > 0
    assert all(_best(tmp_path, inputs)[1] == 0 for inputs in range(1, wanted + 1))


def test_what_a_killed_process_left_is_removed(tmp_path):
    left, writing = tmp_path / ".new-left", tmp_path / ".new-writing"
    for path in (left, writing):
        path.write_text("{")
    os.utime(left, (0, 0))
    _best(tmp_path)
    assert not left.exists()
    assert writing.exists()


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path):
    (tmp_path / "file").write_text("")
    assert _best(tmp_path / "file" / "folder")[1] == 1


def test_tuned_networks_compute_the_same(tmp_path):
    x = sample((3, 8, 9, 3))
    plain = Engine(residual_net(), Settings(tuning=False))(x)
    tuned = Engine(residual_net(), Settings(cache=tmp_path))(x)
    np.testing.assert_allclose(tuned, plain, rtol=0, atol=5e-5)
    assert any(tmp_path.iterdir())
