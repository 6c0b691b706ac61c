"""What one request makes of each fault: the same bytes, or an error; never other bytes."""

from __future__ import annotations

import time
from contextlib import suppress

import pytest

from storage import store
from storage.errors import MissingError, StorageError, UnavailableError
from tests.faults.fault import ANSWER, BEFORE, Fault, Operation
from tests.faults.patience import ATTEMPTS
from tests.faults.proxy import FaultProxy

DATA = bytes(range(256)) * 40

PASSING = ("error 500", "reset", "503 thrice", "hang", "lost answer", "slow", "short body")
"""Faults that a second attempt gets over."""


def test_operations_are_named_as_storage_means_them(proxied):
    proxy, root = proxied
    proxy.install(None)
    uri = store.join(root, "a b", "c.json")
    store.create_json(uri, 1)
    store.read_bytes(uri)
    store.exists(uri)
    store.list_names(store.join(root, "a b"))
    folder = root.removeprefix("s3://").partition("/")[2]
    key = f"{folder}/a b/c.json"
    expected = [("PUT", key), ("GET", key), ("HEAD", key), ("LIST", f"{folder}/a b/")]
    assert proxy.operations == [Operation(*pair) for pair in expected]


@pytest.mark.parametrize("kind", PASSING)
@pytest.mark.parametrize("verb", ["read", "create"])
def test_a_fault_that_passes_is_tried_again(proxied, kind, verb):
    proxy, root = proxied
    uri = store.join(root, "object")
    proxy.install(Fault(kind, matching=lambda o: (o.method == "PUT") == (verb == "create")))
    store.create_bytes(uri, DATA)
    assert store.read_bytes(uri) == DATA
    wanted = 0 if verb == "create" and kind in ANSWER else 1  # a PUT's answer has no body
    assert len(proxy._fault.struck) >= wanted


def test_a_server_in_trouble_for_ever_is_named_with_the_object(proxied):
    proxy, root = proxied
    uri = store.join(root, "object")
    store.create_bytes(uri, DATA)
    proxy.install(Fault("503 storm"))
    with pytest.raises(UnavailableError, match="object"):
        store.read_bytes(uri)
    assert len(proxy.operations) == ATTEMPTS


def test_an_object_that_the_server_denies_is_missing(proxied):
    proxy, root = proxied
    uri = store.join(root, "object")
    store.create_bytes(uri, DATA)
    proxy.install(Fault("404"))
    with pytest.raises(MissingError, match="object does not exist"):
        store.read_bytes(uri)


@pytest.mark.parametrize("kind", ["flipped answer", "lying length"])
def test_an_answer_that_was_damaged_on_its_way_is_no_answer(proxied, kind):
    proxy, root = proxied
    uri = store.join(root, "object")
    store.create_bytes(uri, DATA)
    for seed in range(20):
        proxy.install(Fault(kind, seed=seed))
        with suppress(StorageError):
            assert store.read_bytes(uri) == DATA


def test_a_body_that_was_damaged_on_its_way_is_not_stored(proxied):
    proxy, root = proxied
    for seed in range(20):
        uri = store.join(root, f"object-{seed}")
        proxy.install(Fault("flipped request", seed=seed))
        with suppress(StorageError):
            store.create_bytes(uri, DATA)
        assert not store.exists(uri) or store.read_bytes(uri) == DATA


def test_a_request_that_is_never_answered_ends(proxied):
    proxy, root = proxied
    uri = store.join(root, "object")
    proxy.install(Fault("hang", times=10**6))
    start = time.monotonic()
    with pytest.raises(UnavailableError, match="object"):
        store.create_bytes(uri, DATA)
    assert time.monotonic() - start < 15


def test_an_unknown_fault_is_refused():
    with pytest.raises(ValueError, match="no fault of kind"):
        Fault("gremlin")
    assert "404" in BEFORE
    assert FaultProxy.__doc__
