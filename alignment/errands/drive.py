"""Drive a long errand from inside a Dask worker: state, result, and the words of its failure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from importlib import import_module
from typing import Any

from alignment.blockwise import Client, driver_client
from alignment.errands.progress import Progress, Stopped
from alignment.errors import ConfigError, DataError
from storage.errors import (
    AccessError,
    ConflictError,
    LimitError,
    MissingError,
    SourceError,
    StorageError,
    UriError,
)
from storage.ledger import ErrorKind
from storage.store import delete, join, replace_json

FOLDER = "errands"
"""Below the volume that an errand is about: its state and what it found."""

ERRANDS = {
    "ingest": "alignment.errands.sections",
    "train_nccnet": "alignment.errands.learning",
    "train_unet": "alignment.errands.learning",
    "verify": "alignment.errands.scrub",
}
"""The module of each errand; its function has the errand's name."""

HEAVY = ("train_nccnet", "train_unet")
"""Errands that compute themselves: they keep the slot of their worker, and get no client."""

Errand = Callable[[Mapping[str, Any], Any, Progress], dict[str, Any]]
"""Returns what it found, as JSON values; raises `Finding` where that is a reason to fail."""


class Finding(DataError):
    """An errand did its work and found something that a person must see."""

    def __init__(self, message: str, found: dict[str, Any]) -> None:
        super().__init__(message)
        self.found = found


def place_of(volume: str) -> str:
    """Return where the errands about a volume keep their states and results."""
    return join(volume, FOLDER)


def run(errand: str, volume: str, arguments: Mapping[str, Any]) -> None:
    """Do an errand about `volume`; what became of it is in its ledger, and nothing is raised."""
    progress = Progress(place_of(volume), errand)
    delete(_result(volume, errand))  # an earlier one's
    work: Errand = getattr(import_module(ERRANDS[errand]), errand)
    with suppress(ConflictError), progress.beating(), _client(errand) as client:
        try:
            found = work({**arguments, "volume": volume}, client, progress)
        except Stopped:
            return
        except Finding as finding:
            _write(volume, errand, finding.found)
            progress.settle("failed", str(finding))
        except Exception as error:
            progress.settle("failed", f"{type(error).__name__}: {error}", kind_of(error))
        else:
            _write(volume, errand, found)
            progress.settle("done")


def _client(errand: str) -> AbstractContextManager[Client | None]:
    return nullcontext() if errand in HEAVY else driver_client()


def _write(volume: str, errand: str, found: dict[str, Any]) -> None:
    replace_json(_result(volume, errand), found)


def _result(volume: str, errand: str) -> str:
    return join(place_of(volume), f"{errand}.json")


def kind_of(error: Exception) -> ErrorKind:
    """Return the kind of an error, which decides whether a retry can help."""
    if isinstance(error, AccessError | ConfigError | UriError):
        return "config"
    if isinstance(error, DataError | SourceError | MissingError | LimitError):
        return "data"
    return "storage" if isinstance(error, StorageError) else "other"
