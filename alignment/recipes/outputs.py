"""What a task leaves in its folder, on its way into the store: written once, with digests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from alignment.recipes.errors import TaskFailed
from storage.errors import UriError
from storage.journal import entry_of
from storage.store import create_bytes, join
from storage.uri import check_key

MAX_FILES = 10_000
MAX_FILE_BYTES = 2**30
MAX_RESULT_BYTES = 4096
RESULT = "result.json"


def keep_outputs(folder: Path, uri: str) -> dict[str, Any]:
    """Upload every file below a folder; return uri, bytes and blake3 by name.

    Raises
    ------
    TaskFailed
        If there is anything but plain files and folders, or too much.
    """
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_dir() or path.is_file()):
            raise TaskFailed(f"out/{name} is a link or a device; only plain files are kept")
        if path.is_dir():
            continue
        if len(found) >= MAX_FILES:
            raise TaskFailed(f"more than {MAX_FILES} files in ./out; pack them together")
        found[name] = _keep(path, name, uri)
    return found


def _keep(path: Path, name: str, uri: str) -> dict[str, Any]:
    try:
        check_key(name)
    except UriError as error:
        raise TaskFailed(f"out/{name!r} cannot be kept: {error}") from None
    if path.stat().st_size > MAX_FILE_BYTES:
        raise TaskFailed(f"out/{name} has more than {MAX_FILE_BYTES} bytes; split it")
    data = path.read_bytes()
    place = join(uri, name)
    create_bytes(place, data)
    return {"uri": place, "bytes": len(data), "blake3": entry_of(place, data).blake3}


def read_result(folder: Path) -> dict[str, Any] | None:
    """Return the figures that a task left in ``result.json``, None if it left none.

    Raises
    ------
    TaskFailed
        If it is too large for a record, or not an object of JSON.
    """
    path = folder / RESULT
    if path.is_symlink() or not path.is_file():
        return None
    if path.stat().st_size > MAX_RESULT_BYTES:
        raise TaskFailed(f"{RESULT} may have {MAX_RESULT_BYTES} bytes; put more into ./out")
    try:
        result = json.loads(path.read_bytes(), parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise TaskFailed(f"{RESULT} is not JSON: {error}") from None
    if not isinstance(result, dict):
        raise TaskFailed(f"{RESULT} must hold an object, got {type(result).__name__}")
    return result


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not a number of JSON")
