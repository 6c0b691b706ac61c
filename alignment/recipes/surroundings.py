"""What a program finds around it: its folder, its files, its environment, and no more."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from alignment.errors import ConfigError
from alignment.recipes.frozen import Frozen
from alignment.worker_environment import WORKER_ENVIRONMENT
from storage.errors import CorruptError
from storage.journal import digest_of
from storage.store import join, read_bytes, read_json

PREFIX = "petalign-recipe-"
STALE_S = 86_400.0
"""What a killed worker left in the temporary folder is removed after so long."""

_SECRET_NAME = re.compile(r"SECRET|TOKEN|PASSWORD|ACCESS_KEY|CREDENTIAL|PRIVATE", re.IGNORECASE)
_CREDENTIALS = re.compile(r"AWS_\w+|NO_PROXY|no_proxy")


@contextmanager
def scratch() -> Iterator[Path]:
    """Make a folder with an empty ``work`` inside, and remove it at the end."""
    _sweep()
    base = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    try:
        for name in ("work", "work/in", "work/out", "work/tmp"):
            (base / name).mkdir()
        yield base
    finally:
        shutil.rmtree(base, ignore_errors=True)


@cache
def _sweep() -> None:
    """Remove old folders of processes that are gone, once in a process."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        pid = folder.name.removeprefix(PREFIX).partition("-")[0]
        with suppress(OSError):
            is_old = time.time() - folder.stat().st_mtime > STALE_S
            if is_old and folder.stat().st_uid == os.getuid() and not Path(f"/proc/{pid}").exists():
                shutil.rmtree(folder, ignore_errors=True)


def lay_files(frozen: Frozen, folder: Path) -> None:
    """Copy the recipe's files into a folder.

    Raises
    ------
    CorruptError
        If one is not what the recipe was frozen with.
    """
    for name, digest in frozen.files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_content(join(frozen.uri, "files", name), digest))


def lay_inputs(
    frozen: Frozen, depends_on: Sequence[str], fetch: Sequence[str], folder: Path
) -> None:
    """Lay into ``in`` what earlier experiments made.

    For each experiment of `depends_on` there is ``in/<experiment>.json``, a list of its tasks'
    records with their results; for each item of `fetch` the outputs themselves, below
    ``in/<experiment>/<task>/``.
    """
    for name in depends_on:
        uri = join(frozen.uri, "done", f"{name}.json")
        (folder / "in" / f"{name}.json").write_bytes(_done_bytes(uri))
    for item in fetch:
        name, _, index = item.partition("/")
        records = read_done(frozen.uri, name)
        if index and int(index) >= len(records):
            raise ConfigError(f"fetch {item!r}: {name} has {len(records)} tasks, from 0 on")
        for record in [records[int(index)]] if index else records:
            for key, entry in record["outputs"].items():
                path = folder / "in" / name / record["task"] / key
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(_checked(entry["uri"], entry["blake3"]))


def read_done(uri: str, experiment: str) -> list[dict[str, Any]]:
    """Return the records of all tasks of a finished experiment, in order."""
    found: list[dict[str, Any]] = read_json(join(uri, "done", f"{experiment}.json"))
    return found


@lru_cache(maxsize=8)
def _done_bytes(uri: str) -> bytes:
    return read_bytes(uri)


@lru_cache(maxsize=64)
def _content(uri: str, digest: str) -> bytes:
    return _checked(uri, digest)


def _checked(uri: str, digest: str) -> bytes:
    data = read_bytes(uri)
    if digest_of(data) != digest:
        raise CorruptError(f"{uri} has changed: its digest is not {digest[:16]}; start anew")
    return data


def command_line(words: Sequence[str], programs: Mapping[str, str]) -> list[str]:
    """Return the words with the program's name replaced by where it is on this machine.

    Raises
    ------
    ConfigError
        If the program is not allowed.
    """
    name, *arguments = words
    if name == "python":
        return [sys.executable, *arguments]
    if name == "petalign":
        return [sys.executable, "-P", "-m", "alignment.cli", *arguments]
    if name not in programs:
        known = ", ".join(["petalign", "python", *programs])
        raise ConfigError(f"the program {name!r} is not allowed here; allowed are {known}")
    return [programs[name], *arguments]


def base_environment(folder: Path, *, credentials: bool) -> dict[str, str]:
    """Return the variables that every program gets, whatever the worker's own are."""
    lent = _credentials() if credentials else {}
    return lent | {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), "/usr/bin", "/bin"]),
        "HOME": str(folder),
        "TMPDIR": str(folder / "tmp"),
        "LANG": "C.UTF-8",
        # So that scripts can import this very `storage`, installed or not.
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        **WORKER_ENVIRONMENT,
    }


def _credentials() -> dict[str, str]:
    """Return what the storage package finds its credentials by; its home is another one there."""
    lent = {name: value for name, value in os.environ.items() if _CREDENTIALS.fullmatch(name)}
    folder = Path.home() / ".aws"
    lent.setdefault("AWS_SHARED_CREDENTIALS_FILE", str(folder / "credentials"))
    lent.setdefault("AWS_CONFIG_FILE", str(folder / "config"))
    return lent


def without_secrets(text: bytes) -> bytes:
    """Return a log with the secrets of this worker's environment blacked out."""
    for name, value in os.environ.items():
        if _SECRET_NAME.search(name) and len(value) >= 8:
            text = text.replace(value.encode(), b"***")
    return text
