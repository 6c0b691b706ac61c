"""Copy the objects below a prefix to local files: verified, in parallel, and resumable.

A file gets its name only when it is whole, on disk, and has the digest that is known of it: the
blake3 of the run's manifests, or the MD5 that most S3 servers give as the ETag of a plain object.
Each finished file leaves a line in a journal in the target folder, so that copying again fetches
only what is absent or has changed since. A torn last line costs one file's copy.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import IO, Any

from blake3 import blake3

from storage import store
from storage.cache.origin import ChangedError, Origin, Version, origin
from storage.commit import manifest
from storage.durable import make_folder
from storage.errors import ConflictError, CorruptError, UriError
from storage.uri import check_key

JOURNAL = ".petalign-sync.jsonl"
PART_BYTES = 16 * 2**20
_MD5 = re.compile(r'"?[0-9a-f]{32}"?')
_RUN = re.compile(r"(?P<run>.*/runs/[^/]+)(?:/(?P<below>.*))?")

Tell = Callable[[int, int], None]
"""Called with the number of objects that are done and their bytes."""


@dataclass
class Mirrored:
    """What a copy did."""

    copied: int = 0
    kept: int = 0
    """Files that were there already, whole and of the same version."""
    bytes: int = 0
    """Of the copied ones."""
    unverified: int = 0
    """Copied ones of which no digest is known; their size is right."""


def mirror(
    uri: str,
    folder: str | Path,
    *,
    keys: Iterable[str] | None = None,
    workers: int = 8,
    recheck: bool = False,
    tell: Tell | None = None,
) -> Mirrored:
    """Copy the objects below `uri` to files below `folder`; go on where it stopped before.

    Parameters
    ----------
    keys : iterable of str, optional
        Only these, relative to `uri`; each must exist.
    workers : int
        Objects that are copied at the same time.
    recheck : bool
        Hash the files that are there instead of believing the journal.

    Raises
    ------
    UriError
        If a key would leave the folder: it has ``..``, or a link inside the folder leads out.
    CorruptError
        If an object does not have its digest when it is fetched a second time either.
    ConflictError
        If another copy into the folder is under way.
    """
    target = Path(folder).expanduser().resolve()
    make_folder(target)
    done = Mirrored()
    with _journal(target) as (known, note):
        digests = _recorded_digests(uri)
        objects = store.walk(uri) if keys is None else _versions(uri, keys)

        def copy(item: tuple[str, int, str]) -> Mirrored:
            key, size, tag = item
            path = _place(target, key)
            line = {"key": key, "size": size, "tag": tag}
            old = known.get(key)
            if old is not None and _is_whole(path, line, old, recheck=recheck):
                return Mirrored(kept=1)
            source = origin(store.join(uri, key))
            version = Version(tag, size) if source.name != source.uri else source.version()
            found = _fetch(source, version, path, digests.get(key))
            note({**line, "blake3": found})
            known_by_size = key not in digests and _MD5.fullmatch(tag) is None
            return Mirrored(copied=1, bytes=size, unverified=int(known_by_size))

        for one in _in_parallel(copy, objects, workers):
            for name, value in vars(one).items():
                setattr(done, name, getattr(done, name) + value)
            if tell is not None:
                tell(done.copied + done.kept, done.bytes)
    return done


def _in_parallel(
    work: Callable[[Any], Mirrored], items: Iterable[Any], workers: int
) -> Iterator[Mirrored]:
    """Do the work on each item, a bounded number ahead; the first error stops the rest."""
    pool = ThreadPoolExecutor(workers, thread_name_prefix="sync")
    waiting = []
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= 4 * workers:
                yield waiting.pop(0).result()
        for future in waiting:
            yield future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _versions(uri: str, keys: Iterable[str]) -> Iterator[tuple[str, int, str]]:
    for key in keys:
        tag, size = origin(store.join(uri, key)).version()
        yield key, size, tag


def _place(target: Path, key: str) -> Path:
    """Return the file of a key, which lies below the target whatever the key and the links say."""
    path = target / check_key(key)
    if Path(os.path.realpath(path)) != path:
        raise UriError(f"{path} is reached through a link that may lead out of {target}; remove it")
    if path.name == JOURNAL:
        raise UriError(f"the object {key!r} has the name of the journal; it cannot be copied")
    return path


def _is_whole(path: Path, line: dict[str, Any], old: dict[str, Any], *, recheck: bool) -> bool:
    """Return whether the file of an object is there, of this version, and as it was written."""
    if any(old.get(field) != line[field] for field in line):
        return False
    try:
        if path.stat().st_size != line["size"]:
            return False
        if recheck:
            with path.open("rb") as file:
                return hashlib.file_digest(file, blake3).hexdigest() == old["blake3"]  # type: ignore[arg-type]
    except OSError:
        return False
    return True


def _fetch(source: Origin, version: Version, path: Path, digest: str | None) -> str:
    """Write one object to its file and return its blake3; a second try if the digest is wrong."""
    md5 = version.tag.strip('"') if _MD5.fullmatch(version.tag) else None
    earlier = None
    for _ in range(2):
        with _partial(path) as file:
            found, found_md5 = _download(source, version, file)
            right = found == digest if digest is not None else md5 in (None, found_md5)
            # An ETag may be no MD5 (SSE-KMS): the same bytes twice are what the server has.
            if right or (digest is None and found == earlier):
                file.flush()
                os.fsync(file.fileno())
                Path(file.name).replace(path)
                return found
        earlier = found
    raise CorruptError(
        f"{source.name}: fetched twice, its digest is {found[:16]}, expected "
        f"{(digest or md5 or '')[:16]}. The object is damaged; `petalign verify` finds which are"
    )


def _download(source: Origin, version: Version, file: IO[bytes]) -> tuple[str, str]:
    """Write an object's bytes and return their blake3 and MD5."""
    hashes = blake3(), hashlib.md5(usedforsecurity=False)
    for start in range(0, version.size, PART_BYTES):
        stop = min(start + PART_BYTES, version.size)
        part = source.read(start, stop, version.tag)
        if part.data.size != stop - start:
            raise ChangedError(f"{source.name} changed while it was copied; run the same again")
        file.write(part.data.data)
        for digest in hashes:
            digest.update(part.data.data)
    return hashes[0].hexdigest(), hashes[1].hexdigest()


@contextmanager
def _partial(path: Path) -> Iterator[IO[bytes]]:
    """Open the provisional file of `path`; gone at the end unless it was renamed."""
    try:
        make_folder(path.parent)
    except NotADirectoryError:
        raise UriError(f"{path}: an object has the name of a folder of another one") from None
    provisional = path.with_name(f".{path.name[:200]}.partial")
    try:
        with provisional.open("wb") as file:
            yield file
    finally:
        with suppress(FileNotFoundError):
            provisional.unlink()


@contextmanager
def _journal(
    target: Path,
) -> Iterator[tuple[dict[str, dict[str, Any]], Callable[[dict[str, Any]], None]]]:
    """Yield what was copied before, by key, and the function that notes one more."""
    with (target / JOURNAL).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConflictError(f"another `petalign fs sync` writes to {target}; wait") from None
        file.seek(0)
        known = {}
        for text in file:
            with suppress(ValueError, KeyError, TypeError):  # torn by a kill
                line = json.loads(text)
                known[line["key"]] = line
        if file.tell() and not text.endswith("\n"):
            file.write("\n")

        guard = Lock()

        def note(line: dict[str, Any]) -> None:
            with guard:
                file.write(json.dumps(line) + "\n")
                file.flush()

        yield known, note


def _recorded_digests(uri: str) -> dict[str, str]:
    """Return the blake3 of the objects of a run's sealed stages, by key relative to `uri`."""
    match = _RUN.fullmatch(store.normalise_uri(uri))
    if match is None:
        return {}
    below = f"{match['below']}/" if match["below"] else ""
    return {
        stored.path.removeprefix(below): stored.blake3
        for stage in manifest.sealed_stages(match["run"])
        for line in manifest.read_lines(match["run"], stage)
        for stored in line.objects
        if stored.path.startswith(below)
    }
