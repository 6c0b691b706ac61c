from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from storage import ledger, store
from storage.errors import ConflictError, CorruptError, MissingError, UriError
from storage.grid import tile
from storage.ledger import StageState


def test_a_stage_nobody_started_is_waiting(root):
    state = ledger.read_state(root, "match")
    assert state == StageState("match")
    assert state.status == "waiting"
    assert not state.is_settled


def test_the_last_state_is_read(root):
    state = StageState("match", "running", phase="z-1", blocks_done=3, blocks_total=9)
    ledger.write_state(root, state)
    last = replace(state, status="failed", error="pair (4, 1): no overlap", error_kind="data")
    ledger.write_state(root, last)
    assert ledger.read_state(root, "match") == last
    assert last.is_settled
    assert ledger.read_state(root, "relax") == StageState("relax")


def test_silence_is_measured_both_ways():
    state = StageState("match", "running", heartbeat=1000.0)
    assert not state.is_silent(1059.0, 60.0)
    assert state.is_silent(1061.0, 60.0)
    assert not state.is_silent(941.0, 60.0)  # clocks differ a little
    assert state.is_silent(900.0, 60.0)  # a clock that was an hour ahead must not block for ever
    assert not replace(state, status="done").is_silent(5000.0, 60.0)


def test_one_claim_until_the_driver_falls_silent(root):
    assert ledger.claim(root, "match", silent_after_s=60)
    assert not ledger.claim(root, "match", silent_after_s=60)
    assert ledger.read_state(root, "match").status == "running"
    ledger.write_state(root, StageState("match", "running", heartbeat=time.time() - 100))
    assert ledger.claim(root, "match", silent_after_s=60)
    assert not ledger.claim(root, "match", silent_after_s=60)


@pytest.mark.parametrize(("status", "free"), [("waiting", True), ("failed", True), ("done", False)])
def test_failed_stages_may_be_started_again_and_done_ones_not(tmp_path, status, free):
    ledger.write_state(str(tmp_path), StageState("match", status, heartbeat=time.time()))
    assert ledger.claim(str(tmp_path), "match", silent_after_s=60) is free


def test_of_many_claims_at_once_one_wins(root):
    for stage in ("match", "relax"):
        with ThreadPoolExecutor(8) as pool:
            won = list(
                pool.map(lambda _, s=stage: ledger.claim(root, s, silent_after_s=60), range(8))
            )
        assert sum(won) == 1


def test_claims_of_the_same_instant_differ(root, monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 1e9)
    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(lambda _: ledger.claim(root, "match", silent_after_s=60), range(4)))
    assert sum(won) == 1


def test_records_are_found_by_unit(root):
    boxes = [box.label for box in tile((2, 8, 8), (1, 4, 8), mip=0)]
    assert ledger.recorded(root, "render", "mip0") == set()
    for i, label in enumerate(boxes):
        ledger.record(root, "render", "mip0", label, {"sha256": f"{i}"})
    ledger.record(root, "render", "mip1", "m1_z0_y0_x0", {"sha256": "x"})
    assert ledger.recorded(root, "render", "mip0") == set(boxes)
    assert ledger.recorded(root, "render", "mip1") == {"m1_z0_y0_x0"}
    records = ledger.read_records(root, "render", "mip0")
    assert records == {label: {"sha256": f"{i}"} for i, label in enumerate(boxes)}
    assert list(records) == sorted(boxes)
    assert ledger.read_records(root, "render", "mip0", boxes[1:2]) == {boxes[1]: {"sha256": "1"}}
    with pytest.raises(MissingError, match="m9"):
        ledger.read_records(root, "render", "mip0", ["m9"])


def test_a_unit_is_recorded_once(root):
    ledger.record(root, "match", "d1", "z4", {"sha256": "a"})
    ledger.record(root, "match", "d1", "z4", {"sha256": "a"})
    with pytest.raises(ConflictError, match=r"commits/match/d1/z4\.json"):
        ledger.record(root, "match", "d1", "z4", {"sha256": "b"})
    assert ledger.read_records(root, "match", "d1") == {"z4": {"sha256": "a"}}


def test_names_cannot_leave_the_run(tmp_path):
    with pytest.raises(UriError):
        ledger.record(str(tmp_path), "match", "..", "../../x", {})
    with pytest.raises(UriError):
        ledger.read_state(str(tmp_path), "../other/state/match")


def test_states_of_newer_versions_are_read_and_junk_is_named(tmp_path):
    uri = f"{tmp_path}/state/match.json"
    store.replace_json(uri, {"stage": "match", "status": "done", "gpu_hours": 4})
    assert ledger.read_state(str(tmp_path), "match").status == "done"
    for junk in ([1], {"status": "done"}):
        store.replace_json(uri, junk)
        with pytest.raises(CorruptError, match=r"state/match\.json does not hold the state"):
            ledger.read_state(str(tmp_path), "match")


def test_the_ledger_is_light():
    """Airflow's triggerer imports it; zarr, dask and xarray would cost it seconds."""
    code = (
        "import sys, storage.ledger, storage.publish; "
        "print(sorted({'zarr', 'numpy', 'dask', 'xarray', 'scipy', 'tifffile'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
