"""The folder of a training, here or in the store, where it outlives the machine that trains.

The trainer works in a folder on its own disk. If its folder is a URI, what it has is laid there
after each look at the held-out pairs, and another machine goes on from there::

    <folder>/pairs.json           once, before the first step
    <folder>/parts/<sha256>       the checkpoint and the best network, named by their contents
    <folder>/training.json        which parts belong together, and how training stands
    <folder>/nccnet.safetensors   the network of `training.json`, for runs
    <folder>/log.csv, events.out.tfevents.petalign   for people

`training.json` is swapped when the parts that it names are there and before those of the look
before are deleted. So a kill between any two writes leaves a whole look, this one or the one
before. A swap fails where somebody else was first: of two trainings in one folder one ends.
"""

from __future__ import annotations

import math
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from alignment.errors import ConfigError, DataError
from inference.model_file import digest
from inference.training_files import CHECKPOINT, EVENTS, LOG, MODEL
from storage.errors import ConflictError, CorruptError, MissingError
from storage.store import (
    compare_and_swap_json,
    create_bytes,
    delete,
    exists,
    join,
    normalise_uri,
    read_bytes,
    read_json_tagged,
    replace_bytes,
)

PAIRS, POINTER, PARTS = "pairs.json", "training.json", "parts"


class Contents(NamedTuple):
    """Which files a training keeps."""

    once: str
    """Laid into the store before the first step, and never changed."""
    kept: tuple[str, ...]
    """What belongs together: a checkpoint says how good the best network is."""
    shown: tuple[str, ...]
    """Laid there under their own names, too, for people and for runs."""
    fetched: tuple[str, ...] = ()
    """Of those, what a training that goes on continues."""


NCCNET = Contents(PAIRS, (CHECKPOINT, MODEL), (MODEL, LOG, EVENTS), (LOG,))

_ATTEMPTS = 3


class TrainingFolder:
    """A folder on this machine."""

    threads: int | None = None
    """With how many TensorFlow trains there; it rounds differently with others."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def keep(self, progress: Mapping[str, Any] | None = None) -> None:
        """Lay what is there where it outlives this machine; here it does already.

        Parameters
        ----------
        progress : mapping, optional
            How training stands after a look; None before the first, when there are pairs only.
        """


class StoredFolder(TrainingFolder):
    """A folder in the store, and the one on this machine that stands for it.

    Raises
    ------
    CorruptError
        If what is stored is not what was.
    """

    def __init__(self, uri: str, path: Path, contents: Contents = NCCNET) -> None:
        super().__init__(path)
        self.uri = uri
        self.contents = contents
        self._pointer, self._tag = self._fetch()
        self.threads = (self._pointer or {}).get("threads")
        self._shown: dict[str, str] = {}
        self._has_begun = exists(join(uri, contents.once))
        wanted = [contents.once] if self._has_begun else []
        for name in (*wanted, *(contents.fetched if self._pointer is not None else ())):
            if exists(join(uri, name)):
                (path / name).write_bytes(read_bytes(join(uri, name)))

    @property
    def writer(self) -> str:
        """Who has written the last look: different for each; empty before the first."""
        return str((self._pointer or {}).get("writer", ""))

    def _fetch(self) -> tuple[dict[str, Any] | None, str | None]:
        """Lay the parts of the last look into the folder; return the pointer and its tag."""
        for attempt in range(_ATTEMPTS):
            pointer, tag = read_json_tagged(join(self.uri, POINTER))
            try:
                for name, sha256 in _files(pointer, self.uri, self.contents.kept).items():
                    (self.path / name).write_bytes(self._part(sha256))
            except MissingError:  # if another training went on meanwhile, there is a newer look
                if attempt + 1 == _ATTEMPTS:
                    raise
                continue
            return pointer, tag
        raise AssertionError("the last attempt returns or raises")

    def _part(self, sha256: str) -> bytes:
        uri = join(self.uri, PARTS, sha256)
        content = read_bytes(uri)
        if digest(content) != sha256:
            raise CorruptError(
                f"{uri} is damaged: its digest is {digest(content)}. Delete "
                f"{join(self.uri, POINTER)} to train anew from the same pairs"
            )
        return content

    def keep(self, progress: Mapping[str, Any] | None = None) -> None:
        """Lay what is there before the first step, and what a look has left, into the store.

        Raises
        ------
        ConflictError
            If another training writes to the same folder.
        """
        if not self._has_begun:
            once = self.contents.once
            create_bytes(join(self.uri, once), (self.path / once).read_bytes())
            self._has_begun = True
        if progress is None:
            return
        paths = ((name, self.path / name) for name in self.contents.kept)
        found = {name: path for name, path in paths if path.exists()}
        contents = {name: path.read_bytes() for name, path in found.items()}
        state = {
            "files": {name: digest(content) for name, content in contents.items()},
            "progress": {name: _number(value) for name, value in progress.items()},
            "threads": self.threads,
        }
        before = self._pointer or {}
        if any(before.get(key) != value for key, value in state.items()):
            self._swap(contents, state)
        self._show()
        for sha256 in (self._pointer or {}).get("obsolete", ()):
            delete(join(self.uri, PARTS, sha256))

    def _swap(self, contents: Mapping[str, bytes], state: Mapping[str, Any]) -> None:
        stored = set((self._pointer or {}).get("files", {}).values())
        for name, sha256 in state["files"].items():
            if sha256 not in stored:
                create_bytes(join(self.uri, PARTS, sha256), contents[name])
        pointer = {
            **state,
            "obsolete": sorted(stored - set(state["files"].values())),
            "writer": uuid.uuid4().hex,  # two swaps are never equal
        }
        uri = join(self.uri, POINTER)
        try:
            self._tag = compare_and_swap_json(uri, pointer, self._tag)
        except ConflictError as error:
            raise ConflictError(
                f"another training writes to {self.uri} ({error}); this one ends. One at a time: "
                "the same command goes on from what the other has left"
            ) from None
        self._pointer = pointer

    def _show(self) -> None:
        for name in self.contents.shown:
            path = self.path / name
            if path.exists():
                content = path.read_bytes()
                if self._shown.get(name) != digest(content):
                    replace_bytes(join(self.uri, name), content)
                    self._shown[name] = digest(content)


@contextmanager
def training_folder(place: str, contents: Contents = NCCNET) -> Iterator[TrainingFolder]:
    """Give the folder in which to train; what it stands for is named in errors.

    Parameters
    ----------
    place : str
        A path: then it is this folder itself. Or a URI, ``file://`` too.
    """
    if "://" not in place:
        yield TrainingFolder(Path(place))
        return
    uri = normalise_uri(place)
    with tempfile.TemporaryDirectory(prefix="petalign-train-") as scratch:
        try:
            yield StoredFolder(uri, Path(scratch), contents)
        except (ConfigError, DataError) as error:
            raise type(error)(str(error).replace(scratch, uri)) from error


def read_trained(uri: str) -> dict[str, Any]:
    """Return where the best network of a folder in the store is, and how good, as JSON values.

    Raises
    ------
    DataError
        If nothing was trained there.
    """
    sha256, progress = read_last_look(uri, MODEL)
    return {
        "model": join(uri, MODEL),
        "sha256": sha256,
        "steps": progress["step"],
        "best_step": progress["best_step"],
        "r_delta": progress["best"],
        "raw_r_delta": progress["raw"],
        "has_ended": progress["has_ended"],
    }


def read_last_look(uri: str, model: str) -> tuple[str, dict[str, Any]]:
    """Return the digest of the network `model` of a folder in the store, and the progress.

    Raises
    ------
    DataError
        If nothing was trained there.
    """
    pointer, _ = read_json_tagged(join(uri, POINTER))
    files = _files(pointer, uri, (model,))
    if model not in files:
        raise DataError(f"{uri} holds no trained network")
    return files[model], pointer["progress"]


def _files(pointer: Any, uri: str, kept: Sequence[str]) -> dict[str, str]:
    """Return the parts of a look, of which nobody may choose the names."""
    if pointer is None:
        return {}
    try:
        return {name: str(pointer["files"][name]) for name in kept if name in pointer["files"]}
    except (KeyError, TypeError) as error:
        raise CorruptError(f"{join(uri, POINTER)} is not a training's: {error!r}") from None


def _number(value: Any) -> Any:
    """Return what JSON can hold: nothing for what is no number."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
