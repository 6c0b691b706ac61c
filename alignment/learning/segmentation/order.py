"""What the processes of a training are told, and the kinds of their errors."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alignment.errors import AlignmentError, ConfigError, DataError
from alignment.learning.remote import Contents
from inference.training.config import Mode
from inference.training.files import CHECKPOINT, EVENTS, JOURNAL, LOG, MODEL
from storage.errors import StorageError

ORDER, PROCESSES = "order.json", "processes"
"""In the folder of a training: the order, and the folder of what its processes print."""
THREADS = "TF_NUM_INTRAOP_THREADS"
DATA = "data.json"
"""What it is that the training learns from; never changed."""
WRITER = "writer"
"""Who has written the last look that the folder holds, if it stands for one in the store."""
CONTENTS = Contents(DATA, (CHECKPOINT, MODEL, LOG, JOURNAL), (MODEL, LOG, JOURNAL, EVENTS))
"""Of a folder in the store."""


class WorkerLostError(AlignmentError):
    """A process of a training has died; the same command goes on from the last checkpoint."""


@dataclass(frozen=True)
class Order:
    """A training, as each of its processes reads it."""

    data: str
    folder: str
    """On this machine."""
    store: str | None
    """URI of the folder that it stands for, if it does."""
    config: dict[str, Any]
    mode: Mode
    workers: int
    cache: str | None
    cache_bytes: int

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def read(cls, path: Path) -> Order:
        """Read what `write` wrote."""
        return cls(**json.loads(path.read_text()))


def error_of(told: dict[str, Any]) -> Exception:
    """Return the error that a process has left, by its kind."""
    kinds: dict[str, type[Exception]] = {
        "config": ConfigError, "data": DataError, "storage": StorageError,
    }  # fmt: skip
    return kinds.get(told["kind"], AlignmentError)(told["error"])
