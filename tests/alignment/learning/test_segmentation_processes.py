"""Training by several processes: in step it is one process, and what a lost one does to others."""

import hashlib
import json
import os
import signal
from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("tensorflow") is None:
    pytest.skip("TensorFlow is not installed", allow_module_level=True)

from alignment.errors import ConfigError, DataError
from alignment.learning.remote import PARTS, POINTER, read_last_look
from alignment.learning.segmentation.config import parse_segment_config
from alignment.learning.segmentation.order import WorkerLostError
from alignment.learning.segmentation.train import Watched, train_segmentation
from inference.training.files import CHECKPOINT, JOURNAL, LOG, MODEL
from inference.training.journal import parse
from inference.training.progress import read_rows
from storage.errors import StorageError
from tests.alignment.learning.labelled_volume import voxels, write_zarr

STEPS = 4


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("volume")
    write_zarr(str(folder), *voxels())
    return str(folder)


def settings(batch, **more):
    network = {
        "architecture": "unet", "layers": 2, "features_root": 4, "padding": "same", "dropout": 0,
        "head": "sigmoid",
    }  # fmt: skip
    training = {
        "network": network, "patch_px": (1, 32, 32), "batch": batch, "steps_per_epoch": STEPS,
        "epochs": 2, "held_out": 2, "display_every": 1, "loss": "dice",
    }  # fmt: skip
    return parse_segment_config({"training": training | more})


class Killer(Watched):
    """Kills a worker once a step was taken, and notes what is told of it."""

    def __init__(self, role, index, step):
        self.place, self.step = (role, index), step
        self.processes, self.told = [], []

    def entry(self, entry):
        if entry.kind == "iteration" and entry.number >= self.step and self.place:
            place, self.place = self.place, None
            (found,) = [
                each
                for each in self.processes[-1].running
                if (each.place.role, each.place.index) == place
            ]
            os.kill(found.process.pid, signal.SIGKILL)

    def lost(self, place):
        self.told.append(f"lost {place}")

    def restarted(self, error):
        self.told.append(str(error))


def weights(folder):
    with np.load(folder / CHECKPOINT) as found:
        return {name: found[name] for name in found.files if name.startswith("weights")}


def most_apart(first, second):
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    return max(float(np.abs(ours[name] - theirs[name]).max()) for name in ours)


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "normalised"), [("dice", False), ("cross_entropy", True)])
def test_workers_in_step_are_one_process_with_all_their_batches(place, tmp_path, loss, normalised):
    # Where a gradient is nothing but rounding, Adam moves its weight by the full rate all the same:
    # in longer trainings such weights drift apart.
    settings_of = {"loss": loss, "epochs": 1, "steps_per_epoch": 5}
    network = settings(1).training.network.model_copy(update={"normalised": normalised})
    settings_of["network"] = network.model_dump()
    runs = {"local": (1, 6), "mirrored": (2, 3), "sync": (3, 2)}
    for mode, (workers, batch) in runs.items():
        row = train_segmentation(
            place, str(tmp_path / mode), settings(batch, **settings_of), mode=mode, workers=workers
        )
        assert (row["step"], row["samples"]) == ("5", "30")
    for mode in ("mirrored", "sync"):
        assert 0 < most_apart(tmp_path / "local", tmp_path / mode) < 1e-5
    entries = [list(parse((tmp_path / mode / JOURNAL).read_text().splitlines())) for mode in runs]
    assert len(entries[0]) == len(entries[1]) == len(entries[2]) == 1 + 5 + 2


@pytest.mark.slow
def test_when_a_worker_in_step_is_lost_all_end_and_go_on_from_the_checkpoint(place, tmp_path):
    train_segmentation(place, str(tmp_path / "whole"), settings(2), mode="sync", workers=2)
    killer = Killer("worker", 1, STEPS + 1)
    with pytest.raises(WorkerLostError, match="worker 1 was lost: it ended by signal 9"):
        train_segmentation(
            place, str(tmp_path / "killed"), settings(2, epochs=30), mode="sync", workers=2,
            watched=killer, started=killer.processes.append,
        )  # fmt: skip
    (processes,) = killer.processes
    assert all(each.process.poll() is not None for each in processes.running)
    rows = read_rows(tmp_path / "killed" / LOG)
    assert 1 <= int(rows[-1]["epoch"]) < 30
    last = int(rows[-1]["epoch"])
    train_segmentation(
        place, str(tmp_path / "killed"), settings(2, epochs=last + 1), mode="sync", workers=2
    )
    train_segmentation(
        place, str(tmp_path / "whole"), settings(2, epochs=last + 1), mode="sync", workers=2
    )
    assert most_apart(tmp_path / "whole", tmp_path / "killed") == 0


@pytest.mark.slow
def test_it_begins_again_by_itself_if_it_may(place, tmp_path):
    killer = Killer("worker", 0, STEPS + 1)
    row = train_segmentation(
        place, str(tmp_path), settings(1, epochs=5), mode="sync", workers=2, restarts=1,
        watched=killer, started=killer.processes.append,
    )  # fmt: skip
    assert row["epoch"] == "5"
    assert ["worker 0 was lost" in told for told in killer.told] == [True]


@pytest.mark.slow
def test_apart_a_lost_worker_stops_nobody_and_what_is_learned_is_stale(place, tmp_path):
    # Steps long enough that workers overlap.
    network = {**settings(1).training.network.model_dump(), "features_root": 16, "layers": 3}
    config = settings(
        2, network=network, patch_px=(1, 64, 64), steps_per_epoch=20, epochs=3, loss="dice"
    )
    killer = Killer("worker", 1, 25)
    row = train_segmentation(
        place, str(tmp_path), config, mode="async", workers=2, watched=killer,
        started=killer.processes.append,
    )  # fmt: skip
    assert killer.told == ["lost worker 1"]
    assert row["epoch"] == "3"
    assert int(row["step"]) >= 60
    assert int(row["samples"]) == 2 * int(row["step"])
    rows = read_rows(tmp_path / LOG)
    assert float(rows[1]["staleness"]) > 0
    assert int(rows[1]["most_stale"]) >= 1
    assert float(rows[3]["staleness"]) == 0  # nobody else is left
    assert float(rows[-1]["loss"]) < float(rows[1]["loss"])
    killer = Killer("ps", 0, 61)
    with pytest.raises(WorkerLostError, match="the parameter server was lost"):
        train_segmentation(
            place, str(tmp_path),
            config.model_copy(update={"training": config.training.model_copy(
                update={"epochs": 50}
            )}),
            mode="async", workers=2, watched=killer, started=killer.processes.append,
        )  # fmt: skip
    assert int(read_rows(tmp_path / LOG)[-1]["step"]) >= int(row["step"])


def test_an_error_of_a_process_is_that_of_the_training(place, tmp_path):
    with pytest.raises(DataError, match="does not fit into a volume"):
        train_segmentation(place, str(tmp_path), settings(1, patch_px=(1, 128, 128)))


def test_a_folder_belongs_to_one_volume(place, tmp_path):
    with pytest.raises(ConfigError, match="1 worker, not 2"):
        train_segmentation(place, str(tmp_path), settings(1), workers=2)
    with pytest.raises(DataError):
        train_segmentation(place, str(tmp_path), settings(1, patch_px=(1, 128, 128)))
    with pytest.raises(ConfigError, match="another training was begun there"):
        train_segmentation(f"{place}/other", str(tmp_path), settings(1))


@pytest.mark.slow
def test_a_folder_in_the_store_outlives_the_machine_and_has_one_training_at_a_time(place, tmp_path):
    train_segmentation(place, str(tmp_path / "here"), settings(1))
    uri = f"file://{tmp_path}/there"
    for epochs in (1, 2):  # each in a scratch folder of its own
        row = train_segmentation(place, uri, settings(1, epochs=epochs))
        assert row["epoch"] == str(epochs)
    there = tmp_path / "there"
    pointer = json.loads((there / POINTER).read_text())
    (there / CHECKPOINT).write_bytes((there / PARTS / pointer["files"][CHECKPOINT]).read_bytes())
    assert most_apart(tmp_path / "here", there) == 0
    ours, theirs = (
        parse((f / JOURNAL).read_text().splitlines()) for f in (tmp_path / "here", there)
    )
    assert list(ours) == list(theirs)
    sha256, progress = read_last_look(uri, MODEL)
    assert hashlib.sha256((there / MODEL).read_bytes()).hexdigest() == sha256
    assert progress["has_ended"]

    def meddle(_processes):
        (there / POINTER).write_text(json.dumps(pointer | {"writer": "another"}))

    with pytest.raises(StorageError, match="another training writes to"):
        train_segmentation(place, uri, settings(1, epochs=9), started=meddle)
    with pytest.raises(ConfigError, match="another training was begun there"):
        train_segmentation(f"{place}/images", uri, settings(1))
