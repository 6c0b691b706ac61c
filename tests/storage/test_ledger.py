from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import pytest

from storage import ledger, store
from storage.errors import ConflictError, CorruptError, UriError
from storage.ledger import StageState


@pytest.fixture
def set_clock(monkeypatch):
    """Return a function that sets the clock that `storage` reads, and nobody else's.

    With another `time.time` in the whole process, timers that tornado sets meanwhile go off in
    years, and a Dask cluster that another module keeps here never answers again.
    """

    def set_clock(now_s):
        clock = SimpleNamespace(**{**vars(time), "time": lambda: now_s})
        for name, module in list(sys.modules.items()):
            if name.partition(".")[0] == "storage" and hasattr(module, "time"):
                monkeypatch.setattr(module, "time", clock)

    return set_clock


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


def test_one_claim_until_the_driver_falls_silent(root):
    assert ledger.claim(root, "match", silent_after_s=60)
    assert not ledger.claim(root, "match", silent_after_s=60)
    assert ledger.read_state(root, "match").status == "running"
    time.sleep(2.1)  # HTTP's dates have whole seconds
    assert 1 <= ledger.silence_s(root, "match") <= 30
    assert ledger.claim(root, "match", silent_after_s=0.9)
    assert ledger.read_state(root, "match").epoch == 2


def test_a_wrong_clock_of_this_machine_changes_nothing(root, set_clock):
    assert ledger.claim(root, "match", silent_after_s=60)
    for skew_s in (3600, -3600):
        set_clock(time.time() + skew_s)
        assert ledger.silence_s(root, "match") < 30
        assert not ledger.claim(root, "match", silent_after_s=60)


def test_nobody_has_reported_on_a_stage_that_was_never_begun(root):
    assert ledger.silence_s(root, "match") == float("inf")


def test_a_driver_that_was_thought_dead_learns_of_its_successor(root):
    first = ledger.take(root, "match")
    first.report(replace(first.state, status="running", blocks_done=1))
    second = ledger.take(root, "match")
    assert (second.state.epoch, second.state.blocks_done) == (2, 1)
    with pytest.raises(ConflictError, match="another driver took the stage over"):
        first.report(replace(first.state, blocks_done=2))
    second.report(replace(second.state, blocks_done=3))
    assert ledger.read_state(root, "match").blocks_done == 3


def test_a_stopped_driver_cannot_overwrite_the_verdict(root):
    lease = ledger.take(root, "match")
    lease.report(replace(lease.state, status="running"))
    ledger.stop(root, "match", "a user said so")
    with pytest.raises(ConflictError):
        lease.report(replace(lease.state, status="running", blocks_done=9))
    state = ledger.read_state(root, "match")
    assert (state.status, state.error) == ("failed", "a user said so")
    ledger.stop(root, "match", "again")
    assert ledger.read_state(root, "match").error == "a user said so"


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


def test_claims_of_the_same_instant_differ(root, set_clock):
    set_clock(1e9)
    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(lambda _: ledger.claim(root, "match", silent_after_s=60), range(4)))
    assert sum(won) == 1


def test_names_cannot_leave_the_run(tmp_path):
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
