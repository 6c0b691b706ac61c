"""Any order of writing, dying, resuming, publishing, damaging and mending keeps the invariants.

A state machine drives tiny runs by the commit protocol beside a model made of dicts, and after
every step `storage.commit.verify` must find exactly what the model says was damaged: no less (I1,
I3, I4), and nothing else. Epochs only grow (I5), and readers see the model's voxels or an error.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

import storage
from storage import gc, store
from storage.commit.records import StoredObject
from storage.commit.verify import verify_volume
from storage.errors import ConflictError, CorruptError, MissingError, StorageError
from storage.publish import publish, read_pointer, rollback, versions
from storage.uri import local_path
from tests.faults import tiny

RUNS, SECTIONS = range(3), range(tiny.SECTIONS)


class CommitProtocol(RuleBasedStateMachine):
    """The model: what was written, recorded, sealed, published and damaged."""

    new_root: ClassVar[Callable[[], str]]
    """Returns the URI of an empty folder."""

    @initialize()
    def start(self) -> None:
        """An empty volume."""
        self.root = type(self).new_root()
        self.metadata: dict[int, tuple[StoredObject, ...]] = {}
        self.written: dict[tuple[int, int], tuple[StoredObject, ...]] = {}
        self.recorded: set[tuple[int, int]] = set()
        self.sealed: set[int] = set()
        self.history: list[int] = []
        """The run of each epoch."""
        self.forgotten: set[int] = set()
        """Epochs whose run was deleted."""
        self.damaged: dict[tuple[int, int], bytes] = {}
        """The good bytes, by run and section."""

    # Work on a run, which may end at any point.

    @rule(n=st.sampled_from(RUNS))
    def define(self, n: int) -> None:
        """Begin or resume."""
        self.metadata[n] = tiny.define(self.root, n)

    @precondition(lambda self: self.metadata)
    @rule(data=st.data(), z=st.sampled_from(SECTIONS))
    def write_and_die(self, data: st.DataObject, z: int) -> None:
        """Write a unit's object, and no record: a worker that was killed, or one that is slow."""
        n = data.draw(st.sampled_from(sorted(self.metadata)))
        if (n, z) not in self.damaged:
            self.written[n, z] = tiny.write_unit(self.root, n, z)

    @precondition(lambda self: self.metadata)
    @rule(data=st.data(), z=st.sampled_from(SECTIONS))
    def die_while_writing(self, data: st.DataObject, z: int) -> None:
        """Leave half an object under the name of unfinished copies, where there are such."""
        n = data.draw(st.sampled_from(sorted(self.metadata)))
        path = local_path(store.join(tiny.uri_of(self.root, n), tiny.path_of(z)))
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f".{path.name}.0123.partial").write_bytes(b"half")

    @precondition(lambda self: self.written.keys() - self.damaged.keys())
    @rule(data=st.data())
    def record(self, data: st.DataObject) -> None:
        """Record what is written, perhaps for the second time."""
        n, z = data.draw(st.sampled_from(sorted(self.written.keys() - self.damaged.keys())))
        tiny.record(self.root, n, z, self.written[n, z])
        self.recorded.add((n, z))

    @precondition(lambda self: self.written.keys() - self.damaged.keys())
    @rule(data=st.data())
    def write_again(self, data: st.DataObject) -> None:
        """A unit that is done again, by a driver that was thought dead, changes nothing."""
        n, z = data.draw(st.sampled_from(sorted(self.written.keys() - self.damaged.keys())))
        assert tiny.write_unit(self.root, n, z) == self.written[n, z]

    @rule(n=st.sampled_from(RUNS))
    def finish(self, n: int) -> None:
        """Resume a run up to its seal."""
        if any(damaged == n for damaged, _ in self.damaged):
            return
        self.metadata[n] = tiny.define(self.root, n)
        for z in SECTIONS:
            if (n, z) not in self.recorded:
                self.written[n, z] = tiny.write_unit(self.root, n, z)
        tiny.finish(self.root, n)
        self.recorded |= {(n, z) for z in SECTIONS}
        self.sealed.add(n)

    @precondition(lambda self: self.metadata.keys() - self.sealed)
    @rule(data=st.data())
    def publish_what_is_not_finished(self, data: st.DataObject) -> None:
        """It is refused."""
        n = data.draw(st.sampled_from(sorted(self.metadata.keys() - self.sealed)))
        with pytest.raises((MissingError, ConflictError)):
            publish(self.root, tiny.key_of(n), stages=[tiny.STAGE])

    # Versions.

    def remembered(self) -> list[int]:
        """Return the runs of the versions that are kept, oldest first."""
        return [n for epoch, n in enumerate(self.history, 1) if epoch not in self.forgotten]

    @precondition(lambda self: self.sealed)
    @rule(data=st.data())
    def publish(self, data: st.DataObject) -> None:
        """Publish a finished run."""
        n = data.draw(st.sampled_from(sorted(self.sealed)))
        pointer = publish(self.root, tiny.key_of(n), stages=[tiny.STAGE])
        if not self.history or self.history[-1] != n:
            self.history.append(n)
        assert (pointer.run, pointer.epoch) == (tiny.key_of(n), len(self.history))

    @precondition(lambda self: self.sealed and self.history)
    @rule(data=st.data(), behind=st.integers(1, 3))
    def publish_too_late(self, data: st.DataObject, behind: int) -> None:
        """A driver that decided on an older epoch loses, unless its run is published anyway."""
        n = data.draw(st.sampled_from(sorted(self.sealed)))
        if n != self.history[-1]:
            with pytest.raises(ConflictError):
                publish(self.root, tiny.key_of(n), expected_epoch=len(self.history) - behind)

    @precondition(lambda self: len(set(self.history) & self.sealed) > 1)
    @rule()
    def roll_back(self) -> None:
        """Publish what was there before."""
        earlier = [n for n in self.remembered() if n != self.history[-1]]
        if not earlier:
            return
        assert rollback(self.root).run == tiny.key_of(earlier[-1])
        self.history.append(earlier[-1])

    @rule(keep=st.integers(1, 2))
    def collect(self, keep: int) -> None:
        """Delete what no reader can reach; never what is published or kept."""
        last = list(dict.fromkeys(reversed(self.remembered())))
        kept = {tiny.key_of(n) for n in last[:keep]}
        for key in gc.collect(self.root, keep=keep, grace_s=0.0).deleted:
            assert key not in kept
            (n,) = (n for n in RUNS if tiny.key_of(n) == key)
            self.forgotten |= {e for e, run in enumerate(self.history, 1) if run == n}
            self.metadata.pop(n, None)
            self.sealed.discard(n)
            for z in SECTIONS:
                self.written.pop((n, z), None)
                self.recorded.discard((n, z))
                self.damaged.pop((n, z), None)

    # Damage.

    @precondition(lambda self: self.recorded - self.damaged.keys())
    @rule(data=st.data(), how=st.sampled_from(["flip", "truncate", "delete"]), at=st.integers(0))
    def damage(self, data: st.DataObject, how: str, at: int) -> None:
        """Flip a bit of a recorded shard, cut it off, or delete it."""
        n, z = data.draw(st.sampled_from(sorted(self.recorded - self.damaged.keys())))
        uri = store.join(tiny.uri_of(self.root, n), tiny.path_of(z))
        good = store.read_bytes(uri)
        self.damaged[n, z] = good
        if how == "delete":
            store.delete(uri)
        elif how == "truncate":
            store.replace_bytes(uri, good[: at % len(good)])
        else:
            bad = bytearray(good)
            bad[at % len(good)] ^= 1 << (at % 8)
            store.replace_bytes(uri, bytes(bad))

    @precondition(lambda self: self.damaged)
    @rule()
    def write_over_damage(self) -> None:
        """Without being told to mend, a write never replaces what is there."""
        (n, z), good = next(iter(self.damaged.items()))
        uri = store.join(tiny.uri_of(self.root, n), tiny.path_of(z))
        if store.exists(uri):
            with pytest.raises(StorageError):
                tiny.write_unit(self.root, n, z)
        else:
            tiny.write_unit(self.root, n, z)
            assert store.read_bytes(uri) == self.damaged.pop((n, z)) == good

    @precondition(lambda self: self.damaged)
    @rule()
    def repair(self) -> None:
        """Mend what is found, to the last byte."""
        for problem in verify_volume(self.root, full=True, runs="all").problems:
            if problem.unit and problem.kind != "unexpected":
                (n,) = (n for n in RUNS if tiny.key_of(n) == problem.run)
                tiny.mend(self.root, n, problem)
        for (n, z), good in self.damaged.items():
            assert store.read_bytes(store.join(tiny.uri_of(self.root, n), tiny.path_of(z))) == good
        self.damaged.clear()

    # What holds at any time.

    @invariant()
    def verify_finds_what_is_wrong_and_nothing_else(self) -> None:
        """I1, I3 and I4."""
        if not self.metadata:
            return  # of an empty volume nothing can be said
        problems = verify_volume(self.root, full=True, runs="all").problems
        found = {(p.run, p.path) for p in problems}
        wrong = {(tiny.key_of(n), tiny.path_of(z)) for n, z in self.damaged}
        unrecorded = {
            (tiny.key_of(n), tiny.path_of(z)) for n, z in self.written.keys() - self.recorded
        }
        unsealed = {
            (tiny.key_of(n), stored.path)
            for n in self.metadata.keys() - self.sealed
            for stored in self.metadata[n]
        }
        assert found - unsealed == wrong | unrecorded

    @invariant()
    def epochs_grow_and_the_pointer_is_the_last(self) -> None:
        """I5."""
        pointer = read_pointer(self.root)
        assert (pointer.epoch if pointer else 0) == len(self.history)
        if pointer:
            assert pointer.run == tiny.key_of(self.history[-1])
            told = [v.run for v in versions(self.root)]
            assert told == [tiny.key_of(n) for n in self.remembered()]
            epochs = [v.epoch for v in versions(self.root)]
            assert epochs == sorted(set(epochs))
            assert epochs[-1] == pointer.epoch

    @invariant()
    def readers_see_the_published_run_or_an_error(self) -> None:
        """Never zeros, never another run."""
        if not self.history:
            return
        n = self.history[-1]
        view = storage.open_aligned(self.root)
        for z in SECTIONS:
            if (n, z) in self.damaged:
                with pytest.raises((CorruptError, MissingError)):
                    view[z].to_numpy()
            else:
                np.testing.assert_array_equal(view[z], tiny.voxels(n, z)[0])
