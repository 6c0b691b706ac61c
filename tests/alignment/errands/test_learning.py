"""The errand of a training: a process of its own, what it tells, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from importlib.util import find_spec

import psutil
import pytest
from distributed import Client

from alignment.commands import train_unet
from alignment.errands import learner, learning, progress
from alignment.errands.drive import place_of, run
from alignment.learning.remote import NCCNET, PARTS, POINTER, read_trained
from alignment.learning.segmentation.outcome import read_trained as read_trained_unet
from alignment.learning.segmentation.processes import PROGRAM as PROCESS
from alignment.recipes.process import end_idle
from storage import ledger
from storage.store import join, list_names, read_json, read_json_tagged
from tests.alignment.learning.hard_stack import SETTINGS, write_hard_stack
from tests.alignment.learning.labelled_volume import voxels, write_zarr

needs_tensorflow = pytest.mark.skipif(
    find_spec("tensorflow") is None, reason="TensorFlow is not installed"
)
PRINT = (
    "import sys; print('I0000 noise'); print('40 pairs and 8 held out; not: 3 easy', flush=True)"
)
SEGMENTED = {
    "training": {
        "network": {"architecture": "unet", "layers": 2, "features_root": 2, "padding": "same"},
        "patch_px": [1, 32, 32], "epochs": 30, "steps_per_epoch": 4, "held_out": 2,
    },
}  # fmt: skip
STEP = "step  1,250  loss  0.5000  r_delta 0.1000  (raw 0.0900, best 0.1000 at 1,250)"


@pytest.fixture(scope="module")
def client():
    with Client(
        processes=False, n_workers=1, threads_per_worker=3, dashboard_address=":0"
    ) as started:
        yield started
    end_idle()


@pytest.fixture
def quick_heart(monkeypatch):
    monkeypatch.setattr(progress, "HEARTBEAT_S", 0.05)


@pytest.fixture
def program(monkeypatch, tmp_path):
    """Return a function that lets Python code stand for the program that trains."""
    monkeypatch.setattr(learning, "find_spec", lambda _: True)
    real = learning.run_program

    def program(code: str) -> None:
        def run_code(argv, **options):
            return real([argv[0], "-c", code, *argv[-2:]], **options)

        monkeypatch.setattr(learning, "run_program", run_code)

    return program


@pytest.fixture
def segment(client, quick_heart, tmp_path):
    """Return a function that does the errand of a U-Net, and gives its last state."""

    def segment(folder: str, data: str = "", mode: str = "local", workers: int = 1):
        arguments = {
            "data": data or f"{tmp_path.as_uri()}/data",
            "folder": folder,
            "mode": mode,
            "workers": workers,
            "config": SEGMENTED,
        }
        client.submit(run, "train_unet", folder, arguments, pure=False).result(timeout=300)
        return ledger.read_state(place_of(folder), "train_unet")

    return segment


@pytest.fixture
def train(client, quick_heart, tmp_path):
    """Return a function that does the errand, and gives its last state."""

    def train(folder: str, stack: str = "", config: dict | None = None):
        arguments = {
            "stack": stack or f"{tmp_path.as_uri()}/raw.tif",
            "folder": folder,
            "config": config or SETTINGS,
        }
        client.submit(run, "train_nccnet", folder, arguments, pure=False).result(timeout=300)
        return ledger.read_state(place_of(folder), "train_nccnet")

    return train


def test_what_the_program_says_is_the_progress_and_noise_is_not(train, program, tmp_path):
    program(f"{PRINT}; print({STEP!r}, flush=True); print('and half a li', end=''); sys.exit(3)")
    state = train(tmp_path.as_uri())
    assert (state.phase, state.blocks_done, state.blocks_total) == (STEP, 1250, 20)
    assert (state.status, state.error_kind) == ("failed", "other")
    assert "training ended by exit status 3. Its last lines: I0000 noise | " in state.error


@pytest.mark.parametrize("kind", ["config", "data", "storage", "other"])
def test_the_programs_error_keeps_its_words_and_kind(train, program, tmp_path, kind):
    told = f'{{"error": "raise max_r_delta", "kind": "{kind}"}}'
    program(f"import sys; open(sys.argv[2], 'w').write({told!r}); sys.exit(1)")
    state = train(tmp_path.as_uri())
    assert (state.status, state.error_kind) == ("failed", kind)
    assert state.error.endswith("Error: raise max_r_delta")


def test_a_program_that_is_killed_is_no_fault_of_the_settings(train, program, tmp_path):
    program("import os; os.kill(os.getpid(), 9)")
    state = train(tmp_path.as_uri())
    assert (state.status, state.error_kind) == ("failed", "other")
    assert "ended by signal 9: the machine's memory may be full" in state.error


def test_it_has_the_threads_of_its_worker(train, program, tmp_path):
    names = ["OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"]
    program(f"import os, sys; print('step 0', *[os.environ[n] for n in {names}]); sys.exit(1)")
    assert train(tmp_path.as_uri()).phase == "step 0 3 3"


def test_a_user_who_stops_it_ends_the_program_and_has_the_last_word(train, program, tmp_path):
    uri, pids = tmp_path.as_uri(), tmp_path / "pid"
    program(
        f"import os, time; open({str(pids)!r}, 'w').write(str(os.getpid())); print('step 0 x', "
        "flush=True); time.sleep(600)"
    )

    def stop() -> None:
        deadline = time.monotonic() + 60
        while ledger.read_state(place_of(uri), "train_nccnet").phase != "step 0 x":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        ledger.stop(place_of(uri), "train_nccnet", "a user cleared its task")

    thread = threading.Thread(target=stop)
    thread.start()
    state = train(uri)
    thread.join()
    assert (state.status, state.error) == ("failed", "a user cleared its task")
    assert not psutil.pid_exists(int(pids.read_text()))


def test_a_worker_without_tensorflow_is_a_fault_of_the_set_up(train, monkeypatch, tmp_path):
    monkeypatch.setattr(learning, "find_spec", lambda _: None)
    state = train(tmp_path.as_uri())
    assert (state.status, state.error_kind) == ("failed", "config")
    assert "has no TensorFlow" in state.error
    assert "pip install 'petalign[train]'" in state.error


def test_a_wrong_setting_is_named(train, tmp_path):
    state = train(tmp_path.as_uri(), config={"training": {"stebs": 3}})
    assert state.error_kind == "config"
    assert "training.stebs: no such setting; did you mean 'steps'" in state.error


def test_steps_within_epochs_and_lost_workers_are_progress_too(segment, program, tmp_path):
    epoch = "epoch    2  step      8  loss  0.5000  held out: loss  0.4000, Dice 0.8000"
    step, lost = "step     11  loss 0.4100  error 3.0%", "worker 1 was lost; the others go on"
    program(f"import sys; print({epoch!r}, {step!r}, {lost!r}, 'noise', sep=chr(10)); sys.exit(3)")
    state = segment(tmp_path.as_uri())
    assert (state.phase, state.blocks_done, state.blocks_total) == (lost, 11, 120)
    program(f"import sys; print({step!r}, {epoch!r}, sep=chr(10)); sys.exit(3)")
    state = segment(tmp_path.as_uri())
    assert (state.phase, state.blocks_done) == (epoch, 8)


@pytest.mark.parametrize(
    ("mode", "workers", "threads"), [("local", 1, 3), ("mirrored", 2, 3), ("sync", 2, 1)]
)
def test_processes_share_the_threads_of_their_worker(
    segment, program, tmp_path, mode, workers, threads
):
    program("import os, sys; print('step 0', os.environ['TF_NUM_INTRAOP_THREADS']); sys.exit(1)")
    state = segment(tmp_path.as_uri(), mode=mode, workers=workers)
    assert state.phase == f"step 0 {threads}"


def test_the_program_reads_through_the_cache_of_its_worker(monkeypatch, tmp_path):
    order, seen = tmp_path / "order.json", {}
    told = {
        "errand": "train_unet", "data": "file:///data", "folder": "file:///out", "mode": "sync",
        "workers": 2, "config": SEGMENTED,
    }  # fmt: skip
    order.write_text(json.dumps(told))
    monkeypatch.setattr(train_unet, "train_segmentation", lambda *_, **how: seen.update(how))
    monkeypatch.setenv("PETALIGN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PETALIGN_CACHE_BYTES", "3GB")
    assert learner.main(order, tmp_path / "outcome.json") == 0
    assert (seen["cache"], seen["cache_bytes"]) == (str(tmp_path / "cache"), 3 * 10**9)
    assert (seen["mode"], seen["workers"], seen["joined"]) == ("sync", 2, None)


# What follows starts the real program.


@needs_tensorflow
def test_data_that_are_not_there_fail_for_good(segment, tmp_path):
    state = segment(f"{tmp_path.as_uri()}/out", f"{tmp_path.as_uri()}/none")
    assert (state.status, state.error_kind) == ("failed", "data")
    assert "none/images" in state.error


@pytest.mark.slow
@needs_tensorflow
def test_a_training_by_two_processes_that_is_killed_goes_on(segment, tmp_path):
    data, folder = f"{tmp_path.as_uri()}/data", f"{tmp_path.as_uri()}/out"
    write_zarr(data, *voxels())

    def kill() -> None:
        deadline = time.monotonic() + 200
        while not (pointer := read_json_tagged(join(folder, POINTER))[0]) or (
            pointer["progress"]["step"] < 4
        ):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(processes_of(PROCESS)[0].pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    state = segment(folder, data, "sync", 2)
    thread.join()
    assert (state.status, state.error_kind) == ("failed", "other")
    assert "was lost" in state.error
    assert processes_of(PROCESS) == []
    begun = read_trained_unet(folder)
    assert not begun["has_ended"]
    state = segment(folder, data, "sync", 2)
    assert (state.status, state.blocks_done) == ("done", 120)
    found = read_trained_unet(folder)
    assert (found["steps"], found["samples"], found["has_ended"]) == (120, 240, True)
    assert read_json(f"{place_of(folder)}/train_unet.json") == found


def processes_of(program: str) -> list[psutil.Process]:
    below = psutil.Process().children(recursive=True)
    return [process for process in below if program in process.cmdline()]


def test_a_stack_that_is_not_there_fails_for_good(train, monkeypatch, tmp_path):
    monkeypatch.setattr(learning, "find_spec", lambda _: True)
    state = train(f"{tmp_path.as_uri()}/out", f"{tmp_path.as_uri()}/none.tif")
    assert (state.status, state.error_kind) == ("failed", "data")
    assert "none.tif" in state.error


@pytest.mark.slow
@needs_tensorflow
def test_a_training_that_is_killed_goes_on_and_ends_with_the_same_bytes(train, tmp_path):
    stack = write_hard_stack(tmp_path / "raw.tif")
    calm, hurt = f"{tmp_path.as_uri()}/calm", f"{tmp_path.as_uri()}/hurt"
    assert train(calm, stack).status == "done"

    def kill() -> None:
        deadline = time.monotonic() + 120
        while True:
            pointer, _ = read_json_tagged(join(hurt, POINTER))
            if pointer and pointer["progress"]["step"] >= 4:
                break
            assert time.monotonic() < deadline
            time.sleep(0.01)
        (learner,) = [
            process for process in psutil.Process().children(recursive=True)
            if learning.PROGRAM in process.cmdline()
        ]  # fmt: skip
        os.kill(learner.pid, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    state = train(hurt, stack)
    thread.join()
    assert "ended by signal 9" in state.error
    assert not read_trained(hurt)["has_ended"]
    state = train(hurt, stack)
    assert (state.status, state.blocks_done) == ("done", 20)
    assert read_json(f"{place_of(hurt)}/train_nccnet.json") == read_trained(hurt)
    assert read_trained(hurt) == read_trained(calm) | {"model": f"{hurt}/nccnet.safetensors"}
    parts = [list_names(join(uri, PARTS)) for uri in (calm, hurt)]
    assert parts[0] == parts[1]
    assert len(parts[0]) == len(NCCNET.kept)

    state = train(hurt, stack, SETTINGS | {"mip": 1})
    assert (state.status, state.error_kind) == ("failed", "config")
    assert f"{hurt}/pairs.json was made" in state.error
    few = SETTINGS | {"pairs": SETTINGS["pairs"] | {"max_r_delta": 0.0101, "tries": 1}}
    state = train(f"{tmp_path.as_uri()}/few", stack, few)
    assert (state.status, state.error_kind) == ("failed", "data")
    assert "raise max_r_delta" in state.error
