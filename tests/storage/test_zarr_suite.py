"""zarr's own tests of stores and its state machines, on our store, on file:// and in S3.

The suite deletes and overwrites, so it runs on scratch stores (`writes="any"`). What a run's store
(`writes="once"`) does otherwise is all in `TestWritesOnce`. Three groups of inherited tests skip
themselves in both: those of zarr's synchronous methods, which this store leaves out on purpose (see
the docstring of `storage.checked`).
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import uuid
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, settings
from hypothesis.stateful import rule, run_state_machine_as_test
from hypothesis.strategies import binary
from zarr.abc.store import SupportsDeleteSync, SupportsGetSync, SupportsSetSync
from zarr.core.buffer import Buffer, cpu, default_buffer_prototype
from zarr.testing.stateful import ZarrHierarchyStateMachine, ZarrStoreStateMachine
from zarr.testing.store import StoreTests
from zarr.testing.strategies import keys as zarr_keys

from storage import store as objects
from storage.checked import CheckedStore
from storage.errors import ConflictError, StorageError


def _in_a_loop(test):
    """Return a test that runs the coroutine `test`: pytest has no plugin for these here."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        return asyncio.run(test(*args, **kwargs))

    return run


class Suite(StoreTests[CheckedStore, cpu.Buffer]):
    store_cls = CheckedStore
    buffer_cls = cpu.Buffer
    writes: Any = "any"

    @pytest.fixture
    def store_kwargs(self, root) -> dict[str, Any]:
        # Without `sparse`, a missing chunk is an error, as it is in a run.
        return {"uri": root, "sparse": True, "writes": self.writes}

    @pytest.fixture
    def store(self, open_kwargs) -> CheckedStore:
        return asyncio.run(self.store_cls.open(**open_kwargs))

    @pytest.fixture
    def store_not_open(self, store_kwargs) -> CheckedStore:
        return self.store_cls(**store_kwargs)

    async def set(self, store: CheckedStore, key: str, value: Buffer) -> None:
        objects.replace_bytes(f"{store.uri}/{key}", value.to_bytes())

    async def get(self, store: CheckedStore, key: str) -> Buffer:
        return self.buffer_cls.from_bytes(objects.read_bytes(f"{store.uri}/{key}"))

    def test_store_repr(self, store):
        assert repr(store) == f"CheckedStore({store.uri!r}, read_only=False)"

    def test_store_supports_writes(self, store):
        assert store.supports_writes

    def test_store_supports_listing(self, store):
        assert store.supports_listing

    def test_there_are_no_synchronous_methods(self, store):
        for protocol in (SupportsGetSync, SupportsSetSync, SupportsDeleteSync):
            assert not isinstance(store, protocol)


for _name, _test in inspect.getmembers(StoreTests, inspect.iscoroutinefunction):
    if _name.startswith("test_"):
        setattr(Suite, _name, _in_a_loop(_test))


class TestWritesAny(Suite):
    """Scratch: the whole suite, nothing changed."""

    def test_writing_again_replaces(self, store):
        for value in (b"1", b"22"):
            asyncio.run(store.set("c/0", self.buffer_cls.from_bytes(value)))
        assert objects.read_bytes(f"{store.uri}/c/0") == b"22"


class TestWritesOnce(Suite):
    """A run's store: what differs is overridden here, and says why."""

    writes = "once"

    def test_with_read_only_store(self, open_kwargs):
        """The suite writes, deletes, and writes again; a run's objects cannot be deleted."""
        reader = asyncio.run(self.store_cls.open(**{**open_kwargs, "read_only": True}))
        value = self.buffer_cls.from_bytes(b"bar")
        writer = reader.with_read_only(read_only=False)
        assert not writer._is_open
        assert not writer.read_only
        asyncio.run(writer.set("foo", value))
        with pytest.raises(StorageError, match="never deleted"):
            asyncio.run(writer.delete("foo"))
        for store in (reader, writer.with_read_only(read_only=True)):
            assert store.read_only
            for attempt in (store.set("foo", value), store.delete("foo")):
                with pytest.raises(ValueError, match="read-only mode"):
                    asyncio.run(attempt)

    def test_set_if_not_exists(self, store):
        """In the suite a second value is dropped in silence; here that is a conflict."""
        old, new = (self.buffer_cls.from_bytes(value) for value in (b"0000", b"1111"))
        asyncio.run(store.set_if_not_exists("k", old))
        asyncio.run(store.set_if_not_exists("k", old))
        with pytest.raises(ConflictError):
            asyncio.run(store.set_if_not_exists("k", new))
        assert asyncio.run(store.get("k", default_buffer_prototype())) == old

    def test_clear(self, store):
        """Clearing deletes."""
        asyncio.run(self.set(store, "key", self.buffer_cls.from_bytes(b"something")))
        with pytest.raises(NotImplementedError):  # zarr's answer for stores that cannot delete
            asyncio.run(store.clear())
        assert objects.exists(f"{store.uri}/key")

    def test_delete(self, store):
        """The suite skips all its tests of deleting for a store that says it cannot."""
        assert not store.supports_deletes
        with pytest.raises(StorageError, match="never deleted"):
            asyncio.run(store.delete("absent"))
        with pytest.raises(NotImplementedError):
            asyncio.run(store.delete_dir("absent"))


class StoreMachine(ZarrStoreStateMachine):
    """The machine, but no key is the folder of another: a file system cannot hold both."""

    @rule(key=zarr_keys(), data=binary(max_size=100))
    def set(self, key: str, data: bytes) -> None:
        assume(not any(f"{a}/".startswith(f"{b}/") for k in self.model if k != key
                       for a, b in ((k, key), (key, k))))  # fmt: skip
        super().set(key, data)


_SETTINGS = settings(
    max_examples=25,
    stateful_step_count=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # zarr's own machine draws data types that it warns of
@pytest.mark.parametrize("machine", [StoreMachine, ZarrHierarchyStateMachine])
def test_state_machine(root, machine):
    def fresh():
        return machine(CheckedStore(f"{root}/{uuid.uuid4().hex}", sparse=True, writes="any"))

    run_state_machine_as_test(fresh, settings=_SETTINGS)
