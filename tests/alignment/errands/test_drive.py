"""The driver of errands: what it leaves in the ledger, and when it lets go."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace

import pytest
from distributed import Client

from alignment.errands import drive, progress
from alignment.errands.drive import Finding, place_of, run
from alignment.errors import ConfigError, DataError
from storage import ledger
from storage.errors import UnavailableError
from storage.store import read_json, replace_json


@pytest.fixture(scope="module")
def client():
    with Client(
        processes=False, n_workers=1, threads_per_worker=2, dashboard_address=":0"
    ) as started:
        yield started


@pytest.fixture
def volume(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "HEARTBEAT_S", 0.02)
    return tmp_path.as_uri()


@pytest.fixture
def drive_errand(volume, client, monkeypatch):
    """Return a function that lets the cluster do any errand; gives its last state."""

    def drive_errand(work):
        module = SimpleNamespace(verify=work)
        monkeypatch.setattr(drive, "import_module", lambda _: module)
        client.submit(run, "verify", volume, {"full": True}, pure=False).result(timeout=60)
        return ledger.read_state(place_of(volume), "verify")

    return drive_errand


def result(volume):
    return read_json(f"{place_of(volume)}/verify.json")


def test_an_errand_leaves_its_result_before_it_is_said_to_be_done(volume, drive_errand):
    def work(arguments, client, progress):
        assert arguments == {"full": True, "volume": volume}
        assert client.submit(sum, [1, 2]).result() == 3, "it has the cluster to itself"
        progress.tell(3, 9, "looking")
        return {"objects": 9}

    state = drive_errand(work)
    assert (state.status, state.phase, state.blocks_done, state.blocks_total) == (
        "done", "looking", 3, 9
    )  # fmt: skip
    assert result(volume) == {"objects": 9}


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (ConfigError("too fine"), "config"),
        (DataError("no images"), "data"),
        (UnavailableError("503"), "storage"),
        (ZeroDivisionError("oops"), "other"),
    ],
)
def test_an_error_is_kept_with_its_kind_and_no_result_of_earlier_ones(
    volume, drive_errand, error, kind
):
    replace_json(f"{place_of(volume)}/verify.json", {"objects": 1})

    def work(arguments, client, progress):
        raise error

    state = drive_errand(work)
    assert (state.status, state.error_kind) == ("failed", kind)
    assert state.error == f"{type(error).__name__}: {error}"
    with pytest.raises(FileNotFoundError):
        result(volume)


def test_a_finding_fails_with_its_own_words_and_keeps_everything(volume, drive_errand):
    def work(arguments, client, progress):
        raise Finding("2 damaged objects", {"problems": ["a", "b"]})

    state = drive_errand(work)
    assert (state.status, state.error, state.error_kind) == ("failed", "2 damaged objects", "data")
    assert result(volume) == {"problems": ["a", "b"]}


def test_an_errand_that_a_user_stops_ends_and_leaves_the_users_word(volume, drive_errand):
    def work(arguments, client, progress):
        ledger.stop(place_of(volume), "verify", "marked as failed")
        for done in range(1_000):
            progress.tell(done, 1_000)
            time.sleep(0.01)
        return {}

    state = drive_errand(work)
    assert (state.status, state.error) == ("failed", "marked as failed")
    assert state.blocks_done < 900
    with pytest.raises(FileNotFoundError):
        result(volume)


def test_a_heartbeat_is_written_while_it_works(volume, drive_errand):
    seen = threading.Event()

    def work(arguments, client, progress):
        first = ledger.read_state(place_of(volume), "verify").heartbeat
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline and not seen.is_set():
            if ledger.read_state(place_of(volume), "verify").heartbeat > first:
                seen.set()
            time.sleep(0.01)
        return {}

    drive_errand(work)
    assert seen.is_set()
