"""One process of a training: ``python -m alignment.learning.segmentation.program ORDER OUTCOME``.

Which one, ``TF_CONFIG`` says; without it there is only one. An error is left as JSON in OUTCOME.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import asdict
from pathlib import Path

from alignment.errors import ConfigError, DataError
from alignment.learning.remote import StoredFolder
from alignment.learning.segmentation.config import parse_segment_config
from alignment.learning.segmentation.labelled import open_samples
from alignment.learning.segmentation.order import CONTENTS, THREADS, WRITER, Order
from inference.errors import ConfigError as InferenceConfigError
from inference.errors import InferenceError
from inference.training.cluster import Place
from inference.training.progress import Progress, Tell
from storage.cache import open_cache
from storage.errors import ConflictError


def run(order: Order, place: Place) -> None:
    """Do this process's part, to the end of the training."""
    config = parse_segment_config(order.config)
    cache = open_cache(order.cache, order.cache_bytes) if order.cache else None
    folder = Path(order.folder)
    samples = open_samples(order.data, config, cache) if place.role != "ps" else None
    tell = _keeper(order)
    if order.mode == "async":
        from inference.training.asynchronous import serve, train_apart

        if place.role != "chief":
            serve(samples, place, folder, order.workers)
        elif samples is not None:
            train_apart(samples, folder, order.workers, tell=tell)
    elif samples is not None:
        from inference.training.synchronous import train_in_step

        train_in_step(
            samples, folder, mode=order.mode, workers=order.workers, rank=place.index, tell=tell
        )


def _keeper(order: Order) -> Tell:
    """Return what lays each look into the store, if the folder stands for one there.

    Only the process that writes has something to tell.
    """
    if order.store is None:
        return lambda _: None
    uri, path, folders = order.store, Path(order.folder), list[StoredFolder]()

    def keep(progress: Progress) -> None:
        if not folders:
            with tempfile.TemporaryDirectory(prefix="petalign-train-") as aside:
                folders.append(StoredFolder(uri, Path(aside), CONTENTS))
            if folders[0].writer != (path / WRITER).read_text():
                raise ConflictError(
                    f"another training writes to {uri}; this one ends. One at a time: the same "
                    "command goes on from what the other has left"
                )
            folders[0].path = path
            folders[0].threads = int(os.environ.get(THREADS, "0")) or None
        folders[0].keep(asdict(progress))
        (path / WRITER).write_text(folders[0].writer)

    return keep


def this_place() -> Place:
    """Return which process of the cluster this is."""
    task = json.loads(os.environ.get("TF_CONFIG", "{}")).get("task")
    return Place(task["type"], int(task["index"])) if task else Place("worker", 0)


def end_with(parent: int) -> None:
    """End this process when the one that started it has gone."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def main(order: Path, outcome: Path) -> int:
    """Do what the order says; return the exit status."""
    end_with(os.getppid())
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        run(Order.read(order), this_place())
    except Exception as error:
        from alignment.errands.drive import kind_of  # with all of Dask, which nothing else needs

        traceback.print_exc()
        told: Exception = error
        if isinstance(error, InferenceConfigError):
            told = ConfigError(str(error))
        elif isinstance(error, InferenceError):
            told = DataError(str(error))
        outcome.write_text(json.dumps({"error": str(told), "kind": kind_of(told)}))
        return 1
    return 0


if __name__ == "__main__":
    status = main(*map(Path, sys.argv[1:]))
    sys.stdout.flush()
    sys.stderr.flush()
    # TensorFlow's threads may wait for workers that are gone.
    os._exit(status)
