"""The publish pointer: which run of a volume its readers see.

``LATEST.json`` names a run and an epoch that only grows; it changes by compare-and-swap, in one
step. Everything it points to is complete and never changes, so a reader that resolved it once sees
one run, whole, however often others publish meanwhile. The volume's own ``zarr.json`` repeats the
choice for viewers that open the volume as OME-Zarr; it follows the pointer.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from storage import store
from storage.errors import ConflictError, CorruptError, MissingError
from storage.ome import group_document

POINTER = "LATEST.json"
_ATTEMPTS = 20


@dataclass(frozen=True)
class Pointer:
    """What LATEST.json says."""

    run: str
    """Key of the published run: its folder is ``runs/<run>``."""
    epoch: int
    """1 for the first publication of the volume, then one more each time."""


def read_pointer(volume_uri: str) -> Pointer | None:
    """Return the publish pointer, None if nothing was published yet.

    Raises
    ------
    CorruptError
        If the object does not hold a pointer.
    """
    return _read_tagged(volume_uri)[0]


def publish(volume_uri: str, run_key: str, *, expected_epoch: int | None = None) -> Pointer:
    """Make a finished run the one that readers see; to roll back, publish an older run.

    Publishing the run that is published already changes nothing.

    Parameters
    ----------
    run_key : str
        The run must have ``aligned/``, an OME-Zarr pyramid.
    expected_epoch : int, optional
        The epoch that the caller saw when it decided (0 for "nothing published"). A driver that
        was thought dead and comes back then cannot replace what was published since.

    Raises
    ------
    MissingError
        If the run has no aligned volume.
    ConflictError
        If the epoch is not `expected_epoch` any more.
    """
    _aligned_document(volume_uri, run_key)
    uri = store.join(volume_uri, POINTER)
    for _ in range(_ATTEMPTS):
        current, etag = _read_tagged(volume_uri)
        if current is not None and current.run == run_key:
            published = current
            break
        epoch = current.epoch if current else 0
        if expected_epoch is not None and epoch != expected_epoch:
            raise ConflictError(
                f"{uri} is at epoch {epoch} (run {current.run if current else None}), not "
                f"{expected_epoch}: another run was published meanwhile. Look at it and publish "
                "again if this one shall replace it"
            )
        published = Pointer(run_key, epoch + 1)
        try:
            store.compare_and_swap_json(uri, asdict(published), etag)
            break
        except ConflictError:
            continue
    else:
        raise ConflictError(f"{uri} changed {_ATTEMPTS} times while it was being written")
    _refresh_root(volume_uri)
    return published


def _refresh_root(volume_uri: str) -> None:
    """Let the volume's zarr.json follow the pointer; with several publishers, the newest wins."""
    root_uri = store.join(volume_uri, "zarr.json")
    for _ in range(_ATTEMPTS):
        # Read before the pointer: if the root changes after this, the swap below fails.
        _, etag = store.read_json_tagged(root_uri)
        pointer = read_pointer(volume_uri)
        if pointer is None:
            raise MissingError(f"{volume_uri}/{POINTER} does not exist any more")
        try:
            store.compare_and_swap_json(root_uri, _root_document(volume_uri, pointer), etag)
        except ConflictError:
            continue
        if read_pointer(volume_uri) == pointer:
            return


def _root_document(volume_uri: str, pointer: Pointer) -> object:
    """Return the run's own OME-Zarr group with its paths prefixed."""
    document = _aligned_document(volume_uri, pointer.run)
    ome = document["attributes"]["ome"]
    for multiscale in ome["multiscales"]:
        for dataset in multiscale["datasets"]:
            dataset["path"] = f"runs/{pointer.run}/aligned/{dataset['path']}"
    return group_document({"petalign": asdict(pointer), "ome": ome})


def _aligned_document(volume_uri: str, run_key: str) -> Any:
    uri = store.join(volume_uri, "runs", run_key, "aligned", "zarr.json")
    try:
        document = store.read_json(uri)
        document["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"]
    except MissingError:
        raise MissingError(
            f"run {run_key!r} of {volume_uri} has no aligned volume: {uri} does not exist"
        ) from None
    except (KeyError, IndexError, TypeError):
        raise CorruptError(f"{uri} is not an OME-Zarr pyramid") from None
    return document


def _read_tagged(volume_uri: str) -> tuple[Pointer | None, str | None]:
    uri = store.join(volume_uri, POINTER)
    value, etag = store.read_json_tagged(uri)
    if etag is None:
        return None, None
    try:
        return Pointer(run=str(value["run"]), epoch=int(value["epoch"])), etag
    except (KeyError, TypeError, ValueError):
        raise CorruptError(f'{uri} is not {{"run": "<run key>", "epoch": n}}: {value!r}') from None
