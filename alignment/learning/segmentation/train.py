"""Train a network on a labelled volume by processes of this machine, and watch them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

from alignment.errors import ConfigError
from alignment.learning.remote import StoredFolder, training_folder
from alignment.learning.segmentation.config import LabelledConfig, SegmentConfig
from alignment.learning.segmentation.order import (
    CONTENTS,
    DATA,
    ORDER,
    PROCESSES,
    THREADS,
    WRITER,
    Order,
    WorkerLostError,
)
from alignment.learning.segmentation.processes import Processes
from inference.errors import ConfigError as InferenceConfigError
from inference.training.cluster import (
    Cluster,
    Place,
    check_workers,
    joined_cluster,
    local_cluster,
)
from inference.training.config import Mode
from inference.training.files import JOURNAL, LOG
from inference.training.journal import Entry, parse
from inference.training.progress import read_rows

Row = dict[str, str]


class Watched:
    """What a training says while it runs; the one who watches overrides what it wants to see."""

    def entry(self, entry: Entry) -> None:
        """Receive a line of the journal."""

    def row(self, row: Row) -> None:
        """Receive a row of the table, after each epoch."""

    def lost(self, place: Place) -> None:
        """Receive a worker that the others go on without."""

    def restarted(self, error: WorkerLostError) -> None:
        """Receive why the training starts again from its last checkpoint."""


def train_segmentation(
    data: str,
    place: str,
    config: SegmentConfig,
    *,
    mode: Mode = "local",
    workers: int = 1,
    restarts: int = 0,
    cache: str | None = None,
    cache_bytes: int = 20 * 10**9,
    watched: Watched | None = None,
    stop: Callable[[], bool] = lambda: False,
    started: Callable[[Processes], None] = lambda _: None,
    joined: str | None = None,
) -> Row:
    """Train to the end, from the last checkpoint at `place` if there is one.

    Parameters
    ----------
    data : str
        A path or URI, see `alignment.learning.segmentation.labelled`.
    place : str
        Folder of the training: a path, or a URI; then all is kept there after each epoch.
    restarts : int
        How often a training that has lost a process begins again from its last checkpoint.
    cache : str, optional
        Folder through which a zarr is read, shared by all processes.
    stop : callable
        Asked again and again; training that is stopped goes on from its last checkpoint.
    started : callable
        Receives the processes.
    joined : str, optional
        ``TF_CONFIG`` of a group of processes that others have started, maybe on other machines:
        only this one runs here.

    Returns
    -------
    dict
        The last row of the table; empty if another process of the group writes it.

    Raises
    ------
    ConfigError, DataError, StorageError
        As a process leaves them.
    WorkerLostError
        If a process died that the others need.
    """
    if find_spec("tensorflow") is None:
        raise ConfigError("training needs TensorFlow; add it: pip install 'petalign[train]'")
    try:
        check_workers(mode, workers)
        group = None if joined is None else joined_cluster(mode, workers, joined)
    except InferenceConfigError as error:
        raise ConfigError(str(error)) from None
    if group is not None and "://" not in place:
        raise ConfigError(f"{place}: processes of a group share a folder by its URI; give one")
    with training_folder(place, CONTENTS) as stored:
        folder = stored.path
        folder.mkdir(parents=True, exist_ok=True)
        _check_same(folder, data, config)
        uri = None
        if isinstance(stored, StoredFolder):
            uri = stored.uri
            (folder / WRITER).write_text(stored.writer)
        order = Order(
            data, str(folder.resolve()), uri, config.model_dump(mode="json"), mode, workers, cache,
            cache_bytes,
        )  # fmt: skip
        order.write(folder / ORDER)
        seen = _Seen(folder, watched or Watched())
        environment = _environment(stored.threads)
        while True:
            try:
                _once(order, group, folder, seen, environment, stop, started)
            except WorkerLostError as error:
                if not restarts or group is not None:
                    raise
                restarts -= 1
                seen.watched.restarted(error)
            else:
                writes = group is None or group[1].index == 0
                return read_rows(folder / LOG)[-1] if writes else {}


def _check_same(folder: Path, data: str, config: SegmentConfig) -> None:
    """Refuse a folder of a training that learns from something else, or say what this one does."""
    now = {"data": data, **config.data.model_dump(mode="json")}
    path = folder / DATA
    if path.exists():
        before = json.loads(path.read_text())
        # What was written before a setting existed has its default.
        if {**LabelledConfig().model_dump(mode="json"), **before} != now:
            raise ConfigError(
                f"{path} says that another training was begun there, on {json.dumps(before)}; give "
                "another folder"
            )
        return
    path.write_text(json.dumps(now, indent=1))


def _once(
    order: Order,
    group: tuple[Cluster, Place] | None,
    folder: Path,
    seen: _Seen,
    environment: Mapping[str, str],
    stop: Callable[[], bool],
    started: Callable[[Processes], None],
) -> None:
    cluster = local_cluster(order.mode, order.workers) if group is None else group[0]
    places = cluster.places if group is None else group[1:]
    seen.begin()
    logs = folder / PROCESSES
    with Processes(cluster, folder / ORDER, logs, environment, places) as processes:
        started(processes)

        def watch() -> bool:
            if stop():
                raise KeyboardInterrupt
            for place in processes.lost[seen.lost :]:
                seen.watched.lost(place)
                seen.lost += 1
            return seen.look()

        processes.attend(watch)


class _Seen:
    """Tells what journal and table have had since the last look."""

    def __init__(self, folder: Path, watched: Watched) -> None:
        self.journal, self.table, self.watched = folder / JOURNAL, folder / LOG, watched
        self.begin()

    def begin(self) -> None:
        """Forget what was there before."""
        self.at = self.journal.stat().st_size if self.journal.exists() else 0
        self.rows = len(read_rows(self.table))
        self.lost, self.has_begun = 0, False

    def look(self) -> bool:
        """Tell what is new, and return whether the first step was taken."""
        for entry in parse(self._lines()):
            self.has_begun |= entry.kind == "iteration"
            self.watched.entry(entry)
        rows = read_rows(self.table)
        for row in rows[self.rows :]:
            self.watched.row(row)
        self.rows = len(rows)
        return self.has_begun

    def _lines(self) -> Iterator[str]:
        if not self.journal.exists():
            return
        self.at = min(self.at, self.journal.stat().st_size)  # a training that goes on cuts it
        with self.journal.open("rb") as file:
            file.seek(self.at)
            *lines, _ = file.read().split(b"\n")  # the last one is not complete yet
        for line in lines:
            self.at += len(line) + 1
            yield line.decode(errors="replace")


def _environment(threads: int | None) -> dict[str, str]:
    """Return this process's environment, with the threads that TensorFlow takes.

    As many as the training was begun with, else as the environment says, else one.
    """
    given = {name: value for name, value in os.environ.items() if name != "TF_CONFIG"}
    chosen = str(threads) if threads else given.get(THREADS) or "1"
    path = [str(Path(__file__).parents[3]), *filter(None, [given.get("PYTHONPATH")])]
    return {
        **given,
        THREADS: chosen,
        "TF_CPP_MIN_LOG_LEVEL": given.get("TF_CPP_MIN_LOG_LEVEL", "2"),
        "PYTHONPATH": os.pathsep.join(path),
        "PYTHONUNBUFFERED": "1",
    }
