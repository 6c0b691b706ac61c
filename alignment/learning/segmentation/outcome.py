"""What came of a training: where the best network is, and how good; as JSON values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignment.learning.remote import read_last_look
from inference.training.files import MODEL
from storage.store import join


def read_trained(uri: str) -> dict[str, Any]:
    """Return what the last look of a folder in the store says.

    Raises
    ------
    DataError
        If nothing was trained there.
    """
    sha256, progress = read_last_look(uri, MODEL)
    found = described(join(uri, MODEL), sha256, progress)
    return found | {"has_ended": bool(progress["has_ended"])}


def described(model: str, sha256: str, told: Mapping[str, Any]) -> dict[str, Any]:
    """Return what people and tasks are told of a training.

    Parameters
    ----------
    told : mapping
        A row of the table, or the progress: the same names.
    """
    return {
        "model": model,
        "sha256": sha256,
        "epochs": int(told["epoch"]),
        "steps": int(told["step"]),
        "samples": int(told["samples"]),
        "seconds": float(told["seconds"]),
        "best_epoch": int(told["best_epoch"]),
        "dice": float(told["best"]),
        "staleness": float(told["staleness"]),
    }
