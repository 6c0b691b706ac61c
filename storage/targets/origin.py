"""What is exported: one version of a volume, resolved once, and what an export says of it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from blake3 import blake3

from storage import store
from storage.commit.manifest import run_root
from storage.errors import ConflictError, MismatchError, MissingError, StorageError
from storage.ome import read_level
from storage.publish import find_version, read_pointer
from storage.volume import Array, open_array

CLAIM = "petalign-export.json"
"""Written first into every export of files: what it is an export of."""


@dataclass(frozen=True)
class Origin:
    """An OME-Zarr pyramid of this project, and which version of what it is."""

    uri: str
    """Of the group."""
    run: str | None
    """Key of the run; None for an image that no run made."""
    epoch: int | None
    """Of its publication; None if it was named as a run, or is not one."""
    root: str | None
    """Root over everything in the run; None where there is none."""

    @property
    def about(self) -> dict[str, Any]:
        """Say as JSON values which version it is; holds no place and no name of a host."""
        if self.run is not None:
            return {"run": self.run, "epoch": self.epoch, "root": self.root}
        document = store.read_bytes(store.join(self.uri, "zarr.json"))
        return {"run": None, "image": blake3(document).hexdigest()}

    def level(self, mip: int) -> Level:
        """Open a level of the pyramid."""
        path, resolution, _ = read_level(self.uri, mip)
        z_nm, y_nm, x_nm = resolution
        return Level(open_array(self.uri, path), mip, (z_nm, y_nm, x_nm))

    @property
    def mips(self) -> int:
        """How many levels there are."""
        for mip in count():
            try:
                read_level(self.uri, mip)
            except MismatchError:
                return mip
        raise AssertionError


@dataclass(frozen=True)
class Level:
    """One level of the pyramid."""

    array: Array
    mip: int
    resolution_nm: tuple[float, float, float]
    """Voxel size (z, y, x)."""


def find_origin(uri: str | Path, *, at: int | str | None = None) -> Origin:
    """Resolve a volume (its published run, or version `at`), a run, or a single OME-Zarr image.

    Raises
    ------
    MissingError
        If there is none of them, or nothing was published.
    """
    place = store.normalise_uri(uri)
    version = find_version(place, at) if at is not None else read_pointer(place)
    if version is not None:
        group = store.join(place, "runs", version.run, "aligned")
        return Origin(group, version.run, version.epoch, version.root)
    if store.exists(store.join(place, "aligned", "zarr.json")):
        return Origin(store.join(place, "aligned"), place.rpartition("/")[2], None, _root(place))
    try:
        read_level(place, 0)
    except StorageError as error:
        raise MissingError(
            f"{place} is neither a volume with a published run, nor a run with aligned/, nor an "
            f"OME-Zarr image ({error})"
        ) from None
    return Origin(place, None, None, None)


def claim(dest: str, about: dict[str, Any], *, known: tuple[str, ...] = ()) -> None:
    """Make `dest` the place of one export, and refuse it if it holds anything else.

    Exporting the same again is a success: it goes on where it was. Another epoch of the same run
    is the same.

    Raises
    ------
    ConflictError
        If `dest` holds other files than those named in `known`, or another export.
    """
    uri = store.join(dest, CLAIM)
    if not store.exists(uri):
        others = [name for name in store.list_names(dest) if name not in known]
        if others:
            raise ConflictError(
                f"{dest} holds {', '.join(others[:5])}; expected nothing, or an export that was "
                "begun. Give another name"
            )
    try:
        store.create_json(uri, about)
    except ConflictError:
        found = store.read_json(uri)
        differing = sorted(
            k for k in {*found, *about} if _same(found.get(k)) != _same(about.get(k))
        )
        if differing:
            raise ConflictError(
                f"{dest} holds another export: {', '.join(differing)} differ. Give another name, "
                "or delete it"
            ) from None


def _same(value: Any) -> Any:
    return {k: v for k, v in value.items() if k != "epoch"} if isinstance(value, dict) else value


def _root(run_uri: str) -> str | None:
    try:
        return run_root(run_uri)
    except StorageError:
        return None  # a run that is not finished has none
