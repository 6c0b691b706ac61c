"""The publish pointer: which run of a volume its readers see, and which ones they saw before.

``LATEST.json`` names a run, the root of everything in it, and an epoch that only grows; it changes
by compare-and-swap, in one step. Everything it points to is complete and never changes, so a reader
that resolved it once sees one run, whole, however often others publish meanwhile. Each publication
leaves ``versions/<epoch>.json``, so that an older run can be read and brought back. The volume's
own ``zarr.json`` repeats the choice for viewers that open the volume as OME-Zarr; it follows the
pointer.

The pointer also lists the runs that are being deleted (`storage.gc`). As both decisions go through
the same swap, a run is never published and deleted at once.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from storage import store
from storage.commit import manifest
from storage.errors import ConflictError, CorruptError, MissingError
from storage.ome import group_document

POINTER = "LATEST.json"
VERSIONS = "versions"
GROUPS = ("aligned", "prediction")
"""The image of a run that its volume shows to viewers: the first of these that there is."""
_ATTEMPTS = 20


@dataclass(frozen=True)
class Version:
    """One publication."""

    run: str
    """Key of the published run: its folder is ``runs/<run>``."""
    epoch: int
    """1 for the first publication of the volume, then one more each time."""
    root: str
    """`storage.commit.manifest.run_root` of the run."""
    published_s: float
    """Seconds since 1970 by the publisher's clock; for people only."""


@dataclass(frozen=True)
class Pointer(Version):
    """What LATEST.json says."""

    condemned: tuple[str, ...] = ()
    """Keys of the runs that are being deleted."""


NOTHING = Pointer("", 0, "", 0.0)
"""The pointer of a volume of which nothing was published."""


def read_pointer(volume_uri: str) -> Pointer | None:
    """Return the publish pointer, None if nothing was published yet.

    Raises
    ------
    CorruptError
        If the object does not hold a pointer.
    """
    pointer = _read_tagged(volume_uri)[0]
    return pointer if pointer.run else None


def versions(volume_uri: str) -> list[Version]:
    """Return all publications that are kept, oldest first; the last one is what readers see.

    Raises
    ------
    CorruptError
        If an object does not hold a version.
    """
    folder = store.join(volume_uri, VERSIONS)
    found = {}
    for name in store.list_names(folder):
        uri = store.join(folder, name)
        version = _parsed(uri, store.read_json(uri))
        if name != _version_name(version.epoch):
            raise CorruptError(f"{uri} holds epoch {version.epoch}; its name says another")
        found[version.epoch] = version
    pointer = read_pointer(volume_uri)
    if pointer is not None:
        found[pointer.epoch] = _version_of(pointer)
    return [found[epoch] for epoch in sorted(found)]


def find_version(volume_uri: str, at: int | str) -> Version:
    """Return the newest publication of an epoch (int) or of a run (its key, or how that begins).

    Raises
    ------
    MissingError
        If there is none; names those there are.
    """
    known = versions(volume_uri)
    for version in reversed(known):
        if version.epoch == at or (isinstance(at, str) and at and version.run.startswith(at)):
            return version
    there = ", ".join(f"epoch {v.epoch} (run {v.run})" for v in known) or "nothing"
    raise MissingError(f"{volume_uri} has no version {at!r}; published and kept: {there}")


def publish(
    volume_uri: str,
    run_key: str,
    *,
    expected_epoch: int | None = None,
    stages: Iterable[str] | None = None,
) -> Pointer:
    """Make a finished run the one that readers see.

    Publishing the run that is published already changes nothing.

    Parameters
    ----------
    run_key : str
        The run must have an image, an OME-Zarr pyramid called as one of `GROUPS`.
    expected_epoch : int, optional
        The epoch that the caller saw when it decided (0 for "nothing published"). A driver that
        was thought dead and comes back then cannot replace what was published since.
    stages : iterable of str, optional
        Stages that must be finished; all that are without it.

    Raises
    ------
    MissingError
        If the run has no image, or a stage is not finished.
    ConflictError
        If the epoch is not `expected_epoch` any more, or the run is being deleted.
    """
    _image(volume_uri, run_key)
    root = manifest.run_root(store.join(volume_uri, "runs", run_key), stages)
    uri = store.join(volume_uri, POINTER)
    for _ in range(_ATTEMPTS):
        current, etag = _read_tagged(volume_uri)
        if run_key in current.condemned:
            raise ConflictError(
                f"run {run_key} of {volume_uri} is being deleted (petalign gc); it cannot be "
                "published. Run it again when that is over"
            )
        if current.run == run_key and current.root == root:
            published = current
            break
        if expected_epoch is not None and current.epoch != expected_epoch:
            raise ConflictError(
                f"{uri} is at epoch {current.epoch} (run {current.run or None}), not "
                f"{expected_epoch}: another run was published meanwhile. Look at it and publish "
                "again if this one shall replace it"
            )
        # A publisher that died after its swap may have left this to us.
        _keep_version(volume_uri, current)
        published = Pointer(run_key, current.epoch + 1, root, time.time(), current.condemned)
        try:
            store.compare_and_swap_json(uri, asdict(published), etag)
            break
        except ConflictError:
            if _was_published(volume_uri, published):
                break  # the answer was lost, and others published since: theirs is the last word
            continue
    else:
        raise ConflictError(f"{uri} changed {_ATTEMPTS} times while it was being written")
    _keep_version(volume_uri, published)
    _refresh_root(volume_uri)
    return published


def rollback(volume_uri: str, to: int | str | None = None) -> Pointer:
    """Bring back an older run, as a new epoch: history is added to, never changed.

    Parameters
    ----------
    to : int or str, optional
        Epoch or run key; the run that was published before the present one without it.

    Raises
    ------
    MissingError
        If there is no such version, or its run is not there any more.
    CorruptError
        If the run is not what it was when it was published.
    """
    current = read_pointer(volume_uri)
    if current is None:
        raise MissingError(f"{volume_uri} has no published run; there is nothing to roll back")
    if to is None:
        earlier = [v for v in versions(volume_uri) if v.run != current.run]
        if not earlier:
            raise MissingError(f"{volume_uri} has no other published run than {current.run}")
        wanted = earlier[-1]
    else:
        wanted = find_version(volume_uri, to)
    found = manifest.run_root(store.join(volume_uri, "runs", wanted.run))
    if found != wanted.root:
        raise CorruptError(
            f"run {wanted.run} of {volume_uri} has the root {found[:16]}, but was published with "
            f"{wanted.root[:16]}: look at it with `petalign verify`, mend it with `petalign repair`"
        )
    return publish(volume_uri, wanted.run, expected_epoch=current.epoch)


def change_condemned(volume_uri: str, *, add: Iterable[str] = (), drop: Iterable[str] = ()) -> None:
    """Change the list of the runs that are being deleted; see `storage.gc`.

    Raises
    ------
    ConflictError
        If one of `add` is published now.
    """
    uri = store.join(volume_uri, POINTER)
    added, dropped = set(add), set(drop)
    for _ in range(_ATTEMPTS):
        current, etag = _read_tagged(volume_uri)
        if current.run in added:
            raise ConflictError(f"run {current.run} of {volume_uri} was published meanwhile")
        condemned = tuple(sorted((set(current.condemned) | added) - dropped))
        if condemned == current.condemned:
            return
        try:
            changed = asdict(replace(current, condemned=condemned))
            store.compare_and_swap_json(uri, changed, etag)
        except ConflictError:
            continue
        return
    raise ConflictError(f"{uri} changed {_ATTEMPTS} times while it was being written")


def condemned(volume_uri: str) -> tuple[str, ...]:
    """Return the keys of the runs that are being deleted."""
    return _read_tagged(volume_uri)[0].condemned


def forget_version(volume_uri: str, epoch: int) -> None:
    """Delete the entry of a publication that is not the present one."""
    store.delete(store.join(volume_uri, VERSIONS, _version_name(epoch)))


def _keep_version(volume_uri: str, pointer: Pointer) -> None:
    if pointer.epoch:
        uri = store.join(volume_uri, VERSIONS, _version_name(pointer.epoch))
        store.create_json(uri, asdict(_version_of(pointer)))


def _was_published(volume_uri: str, pointer: Pointer) -> bool:
    """Return whether a swap was carried out: who publishes next keeps what it replaces."""
    uri = store.join(volume_uri, VERSIONS, _version_name(pointer.epoch))
    try:
        return bool(store.read_json(uri) == asdict(_version_of(pointer)))
    except MissingError:
        return False


def _version_of(pointer: Version) -> Version:
    return Version(pointer.run, pointer.epoch, pointer.root, pointer.published_s)


def _version_name(epoch: int) -> str:
    return f"{epoch:06d}.json"


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
            document = _root_document(volume_uri, pointer)
            store.compare_and_swap_json(root_uri, document, etag)
        except ConflictError:
            continue
        if read_pointer(volume_uri) == pointer:
            return


def _root_document(volume_uri: str, pointer: Pointer) -> object:
    """Return the run's own OME-Zarr group with its paths prefixed."""
    group, document = _image(volume_uri, pointer.run)
    ome = document["attributes"]["ome"]
    for multiscale in ome["multiscales"]:
        for dataset in multiscale["datasets"]:
            dataset["path"] = f"runs/{pointer.run}/{group}/{dataset['path']}"
    published = {"run": pointer.run, "epoch": pointer.epoch, "root": pointer.root}
    return group_document({"petalign": published, "ome": ome})


def _image(volume_uri: str, run_key: str) -> tuple[str, Any]:
    """Return name and zarr.json of the image of a run."""
    for group in GROUPS:
        uri = store.join(volume_uri, "runs", run_key, group, "zarr.json")
        try:
            document = store.read_json(uri)
            document["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"]
        except MissingError:
            continue
        except (KeyError, IndexError, TypeError):
            raise CorruptError(f"{uri} is not an OME-Zarr pyramid") from None
        return group, document
    raise MissingError(
        f"run {run_key!r} of {volume_uri} has no aligned volume and no prediction: none of "
        f"{', '.join(GROUPS)} has a zarr.json"
    )


def _read_tagged(volume_uri: str) -> tuple[Pointer, str | None]:
    uri = store.join(volume_uri, POINTER)
    value, etag = store.read_json_tagged(uri)
    if etag is None:
        return NOTHING, None
    told = _parsed(uri, value)
    try:
        condemned = tuple(str(key) for key in value["condemned"])
    except (KeyError, TypeError):
        raise CorruptError(f"{uri} does not say which runs are being deleted: {value!r}") from None
    return Pointer(told.run, told.epoch, told.root, told.published_s, condemned), etag


def _parsed(uri: str, value: Any) -> Version:
    try:
        return Version(
            run=str(value["run"]),
            epoch=int(value["epoch"]),
            root=str(value["root"]),
            published_s=float(value["published_s"]),
        )
    except (KeyError, TypeError, ValueError):
        raise CorruptError(f"{uri} is not a publication (run, epoch, root): {value!r}") from None
