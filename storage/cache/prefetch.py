"""Fetch ahead what a list of boxes will need, in the background, into the cache.

The list may be endless (training) and is read only as far ahead as the window allows. Blocks of
the window are leased: no process evicts them before the box that needs them was read. The
background only ever makes reads faster. What it cannot fetch, it leaves to the read, which fetches
it again and raises the error if there still is one.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import numpy as np
import zarr
from numpy.typing import NDArray

from storage.cache.arrays import CachedStore
from storage.cache.fetch import Block
from storage.cache.needs import Needs
from storage.cache.origin import Origin, Version
from storage.errors import StorageError
from storage.grid import Box
from storage.volume import read

LEASE_S = 600.0
"""Longer than a window lasts; if a process dies, its leases run out after this."""

MAX_BOXES = 64
"""How many boxes ahead the list is read at most."""

_MAX_KNOWN = 4096
_NOTHING = np.empty(0, np.uint8)
_Needed = tuple[Origin, Version, list[Block]]


class Prefetch:
    """Fetches the blocks of boxes ahead of who reads them.

    Use it as a context manager, and call `done` with a box's place in the list when it was read::

        with Prefetch(array, boxes, window_bytes=2**28) as ahead:
            for place, box in enumerate(boxes):
                use(read(array, box))
                ahead.done(place)

    Parameters
    ----------
    array : zarr array
        As `storage.cache.arrays.cached` returns it.
    boxes : iterable of Box
        In the order in which they will be needed, roughly; may be endless.
    window_bytes : int
        Blocks that are held ahead, at most; cut to half of the cache.
    concurrency : int
        Objects or parts that are fetched at the same time.
    """

    def __init__(
        self,
        array: zarr.Array[Any],
        boxes: Iterable[Box],
        *,
        window_bytes: int = 2**28,
        concurrency: int = 16,
    ) -> None:
        store = array.store
        if not isinstance(store, CachedStore):
            raise StorageError(f"{store} is not read through a cache; use cached(array, cache)")
        self._store = store
        self._cache = store.cache
        self._needs = Needs.of(array)
        self._boxes = boxes
        self._prefix = f"{array.path}/" if array.path else ""
        self._window = min(window_bytes, self._cache.max_bytes // 2) // self._cache.block_bytes
        self._room = threading.Condition()
        self._uses: Counter[bytes] = Counter()
        self._of_box: dict[int, set[bytes]] = {}
        self._known: dict[str, tuple[Origin, Version, NDArray[np.uint64], float]] = {}
        self._planned = 0
        self._done: set[int] = set()
        self._cancelled = False
        self._pool = ThreadPoolExecutor(concurrency, thread_name_prefix="prefetch")
        self._planner = threading.Thread(target=self._plan, name="prefetch-plan", daemon=True)

    def __enter__(self) -> Self:
        """Begin."""
        self._planner.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Cancel what is left."""
        self.cancel()

    def done(self, place: int) -> None:
        """Say that the box at this place of the list was read: its blocks may go."""
        with self._room:
            if place >= self._planned:
                self._done.add(place)
            free = self._no_longer_used(self._of_box.pop(place, set()))
            self._room.notify_all()
        self._release(free)

    def cancel(self) -> None:
        """Fetch no more, give back what is held, and wait for requests under way."""
        with self._room:
            self._cancelled = True
            self._room.notify_all()
        self._pool.shutdown(wait=False, cancel_futures=True)
        if self._planner.is_alive():
            self._planner.join()
        self._pool.shutdown()
        with self._room:
            free = [n for names in self._of_box.values() for n in self._no_longer_used(names)]
            self._of_box.clear()
        self._release(free)

    @property
    def held_blocks(self) -> int:
        """How many blocks are held for boxes that were not read yet."""
        return len(self._uses)

    def _plan(self) -> None:
        # Nothing is raised here: the read of the same box meets the same error and tells it.
        with suppress(Exception):
            for place, box in enumerate(self._boxes):
                if not self._wait_for_room(0):
                    return
                needed = self._blocks_of(box)
                names = {block.name for _, _, blocks in needed for block in blocks}
                if not self._wait_for_room(len(names)):
                    return
                with self._room:
                    self._planned = place + 1
                    if place in self._done:
                        self._done.discard(place)
                        continue
                    held = set(self._uses)
                    self._of_box[place] = names
                    self._uses.update(names)
                for source, version, blocks in needed:
                    fresh = [block for block in blocks if block.name not in held]
                    absent = self._cache.lease(fresh, LEASE_S)
                    if absent:
                        self._pool.submit(self._bring, source, version, absent)

    def _wait_for_room(self, blocks: int) -> bool:
        """Wait until so many more blocks fit; a box larger than the window has it alone.

        A volume that fits into the window would let an endless list be planned without end.
        """
        with self._room:
            while not self._cancelled:
                fits = len(self._uses) + blocks < self._window
                if not self._of_box or (fits and len(self._of_box) < MAX_BOXES):
                    return True
                self._room.wait()
        return False

    def _blocks_of(self, box: Box) -> list[_Needed]:
        """Return the blocks that a box needs, of one object after the other."""
        objects = self._needs.objects(box)
        unknown = [key for key, _ in objects if not self._is_known(key)]
        list(self._pool.map(self._look, unknown))
        found = []
        for key, position in objects:
            if key in self._known:
                source, version, entries, _ = self._known[key]
                blocks = {
                    block.low: block
                    for first, last in self._needs.parts(box, position, entries)
                    for block in self._cache.fetcher.blocks(source, version, first, last)
                }
                found.append((source, version, [blocks[low] for low in sorted(blocks)]))
        return found

    def _is_known(self, key: str) -> bool:
        age = self._store.max_age_s
        known = self._known.get(key)
        return known is not None and (age is None or time.monotonic() - known[3] < age)

    def _look(self, key: str) -> None:
        """Ask for the version of an object and, if it is a shard, read its index."""
        source = self._store.origin(self._prefix + key)
        age, size = self._store.max_age_s, self._needs.index_bytes
        with suppress(StorageError):
            index = self._cache.get(source, -size, None, max_age_s=age) if size else _NOTHING
            version = self._cache.version(source, max_age_s=age)
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            self._known[key] = source, version, self._needs.entries(index), time.monotonic()

    def _bring(self, source: Origin, version: Version, blocks: list[Block]) -> None:
        with suppress(Exception):
            if not self._cancelled:
                self._cache.hold(source, version, blocks, LEASE_S)
        with self._room:  # its box may have been read while this was on its way
            free = [block.name for block in blocks if not self._uses[block.name]]
        self._release(free)

    def _no_longer_used(self, names: set[bytes]) -> list[bytes]:
        """Return which of a box's blocks no box of the window needs any more; holding the lock."""
        self._uses.subtract(names)
        free = [name for name in names if self._uses[name] <= 0]
        for name in free:
            del self._uses[name]
        return free

    def _release(self, names: list[bytes]) -> None:
        for name in names:
            self._cache.release(name)


def read_ahead(
    array: zarr.Array[Any], boxes: Iterable[Box], *, window_bytes: int = 2**28
) -> Iterator[NDArray[Any]]:
    """Yield the voxels of boxes in their order, fetching ahead; of a cached array.

    Raises
    ------
    StorageError
        As `storage.volume.read` does, at the box that it concerns.
    """
    boxes = list(boxes)
    with Prefetch(array, boxes, window_bytes=window_bytes) as ahead:
        for place, box in enumerate(boxes):
            yield read(array, box)
            ahead.done(place)
