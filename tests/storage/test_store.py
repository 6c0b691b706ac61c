"""The object store's promises, each on a file system and on a real S3 server."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from storage import s3, store
from storage.errors import (
    AccessError,
    ConflictError,
    CorruptError,
    MissingError,
    StorageError,
    UnavailableError,
    UriError,
)


def test_what_was_created_is_read(root):
    uri = store.join(root, "runs", "a", "digest.bin")
    assert not store.exists(uri)
    store.create_bytes(uri, b"\0\xff" * 1000)
    assert store.read_bytes(uri) == b"\0\xff" * 1000
    assert store.exists(uri)
    assert not store.exists(store.join(root, "runs"))  # a folder is no object


def test_creating_again_is_a_success_only_with_the_same_content(root):
    uri = store.join(root, "unit.json")
    store.create_json(uri, {"b": 1, "a": [1.5, "µ"]})
    store.create_json(uri, {"a": [1.5, "µ"], "b": 1})  # the order of keys is no content
    with pytest.raises(ConflictError, match=r"unit\.json exists with other content"):
        store.create_json(uri, {"a": [1.5, "µ"], "b": 2})
    assert store.read_json(uri) == {"a": [1.5, "µ"], "b": 1}


def test_an_empty_object_is_not_a_missing_one(root):
    uri = store.join(root, "empty")
    store.create_bytes(uri, b"")
    assert store.read_bytes(uri) == b""
    with pytest.raises(ConflictError):
        store.create_bytes(uri, b"x")


def test_missing_objects_are_named(root):
    uri = store.join(root, "no", "such.json")
    with pytest.raises(MissingError, match=r"no/such\.json does not exist"):
        store.read_bytes(uri)
    with pytest.raises(FileNotFoundError):
        store.read_json(uri)
    assert store.read_json_tagged(uri) == (None, None)
    assert store.list_names(store.join(root, "no")) == []


def test_not_found_is_quick(root):
    start = time.monotonic()
    for i in range(20):
        assert not store.exists(store.join(root, f"absent-{i}"))
        assert store.list_names(store.join(root, f"absent-{i}")) == []
    assert time.monotonic() - start < 3  # none of the retries of a server in trouble


def test_names_are_those_directly_below(root):
    for name in ("b.json", "a.json", "deep/er/c.json", ".zarray"):
        store.create_bytes(store.join(root, name), name.encode())
    assert store.list_names(root) == [".zarray", "a.json", "b.json", "deep"]
    assert store.list_names(store.join(root, "deep")) == ["er"]
    assert store.list_names(store.join(root, "dee")) == []  # a folder, not a prefix of names


def test_walk_finds_everything_and_tags_change_with_content(root):
    for name in ("a.json", "deep/er/c.json"):
        store.create_bytes(store.join(root, name), name.encode())
    before = {key: (size, tag) for key, size, tag in store.walk(root)}
    assert {key: size for key, (size, _) in before.items()} == {"a.json": 6, "deep/er/c.json": 14}
    time.sleep(0.01)
    store.replace_bytes(store.join(root, "a.json"), b"A.JSON")
    after = {key: (size, tag) for key, size, tag in store.walk(root)}
    assert {key for key in before if before[key] != after[key]} == {"a.json"}


def test_replacing_leaves_one_object(root):
    uri = store.join(root, "state.json")
    for value in (1, 2, 3):
        store.replace_json(uri, {"done": value})
    assert store.read_json(uri) == {"done": 3}
    assert store.list_names(root) == ["state.json"]


def test_readers_never_see_half_an_object(root):
    uri = store.join(root, "state.bin")
    store.replace_bytes(uri, b"0" * 200_000)
    stop = threading.Event()

    def overwrite() -> None:
        for digit in b"123456789" * 10:
            store.replace_bytes(uri, bytes([digit]) * 200_000)
            if stop.is_set():
                return

    with ThreadPoolExecutor() as pool:
        writer = pool.submit(overwrite)
        seen = [store.read_bytes(uri) for _ in range(100)]
        stop.set()
        writer.result()
    assert {len(data) for data in seen} == {200_000}
    assert all(len(set(data)) == 1 for data in seen)


def test_swap_only_of_what_was_read(root):
    uri = store.join(root, "LATEST.json")
    store.compare_and_swap_json(uri, {"epoch": 1}, None)
    with pytest.raises(ConflictError, match="did not exist"):
        store.compare_and_swap_json(uri, {"epoch": 9}, None)
    value, tag = store.read_json_tagged(uri)
    assert value == {"epoch": 1}
    store.compare_and_swap_json(uri, {"epoch": 2}, tag)
    with pytest.raises(ConflictError, match="changed since"):
        store.compare_and_swap_json(uri, {"epoch": 3}, tag)
    assert store.read_json(uri) == {"epoch": 2}


def test_swap_of_what_is_gone_is_a_conflict(root):
    uri = store.join(root, "LATEST.json")
    store.compare_and_swap_json(uri, {"epoch": 1}, None)
    _, tag = store.read_json_tagged(uri)
    other = store.join(root, "OTHER.json")
    with pytest.raises(ConflictError, match=r"OTHER\.json was deleted"):
        store.compare_and_swap_json(other, {"epoch": 2}, tag)
    assert not store.exists(other)


def test_create_race_has_one_winner_and_no_false_conflict(root):
    def attempt(uri: str, content: bytes, start: threading.Barrier) -> bytes | None:
        start.wait()
        try:
            store.create_bytes(uri, content)
        except ConflictError:
            return None
        return content

    with ThreadPoolExecutor(8) as pool:
        for trial in range(1 if root.startswith("s3") else 20):  # a loser waits 1 s in SeaweedFS
            uri = store.join(root, f"race-{trial}")
            start = threading.Barrier(8)
            # Writers 0..3 agree, 4..7 do not.
            contents = [b"same" * 500] * 4 + [f"{i}".encode() * 2000 for i in range(4)]
            results = list(pool.map(attempt, [uri] * 8, contents, [start] * 8))
            stored = store.read_bytes(uri)
            winners = {r for r in results if r is not None}
            assert winners == {stored}
            assert sum(r is not None for r in results) == contents.count(stored)


def test_swap_race_has_one_winner(root):
    uri = store.join(root, "LATEST.json")
    store.compare_and_swap_json(uri, {"epoch": 0}, None)
    _, tag = store.read_json_tagged(uri)
    start = threading.Barrier(8)

    def attempt(writer: int) -> bool:
        start.wait()
        try:
            store.compare_and_swap_json(uri, {"epoch": 1, "writer": writer}, tag)
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(attempt, range(8)))
    assert sum(won) == 1
    assert store.read_json(uri)["writer"] == won.index(True)


def test_lost_answer_of_a_create_is_looked_up(proxy, s3_root):
    uri = store.join(s3_root, "record.json")
    proxy.answers_to_lose = 1
    store.create_json(uri, {"digest": "abc"})
    assert store.read_json(uri) == {"digest": "abc"}
    assert proxy.puts == 2  # the retry met its own object and was refused


def test_no_answer_at_all_to_a_create_that_arrived_is_a_success(proxy, s3_root, monkeypatch):
    monkeypatch.setitem(s3.RETRY, "max_retries", 0)
    s3._client.cache_clear()
    proxy.answers_to_lose = 1
    store.create_bytes(store.join(s3_root, "record"), b"abc")
    assert proxy.puts == 1


def test_lost_answer_with_another_object_there_is_a_conflict(proxy, s3_root):
    uri = store.join(s3_root, "record.json")
    store.create_json(uri, {"digest": "other"})
    proxy.answers_to_lose = 1
    with pytest.raises(ConflictError, match="other content"):
        store.create_json(uri, {"digest": "abc"})


def test_lost_answer_of_a_swap_is_looked_up(proxy, s3_root):
    uri = store.join(s3_root, "LATEST.json")
    store.compare_and_swap_json(uri, {"epoch": 1}, None)
    _, tag = store.read_json_tagged(uri)
    proxy.answers_to_lose = 1
    store.compare_and_swap_json(uri, {"epoch": 2}, tag)
    assert store.read_json(uri) == {"epoch": 2}


def test_large_objects_are_created_once_too(root):
    data = os.urandom(12_000_000)  # above what S3 clients send in one piece by default
    uri = store.join(root, "shard")
    store.create_bytes(uri, memoryview(data))
    store.create_bytes(uri, data)
    with pytest.raises(ConflictError):
        store.create_bytes(uri, data[:-1] + b"\0")
    assert store.read_bytes(uri) == data


def test_json_that_was_cut_short_on_the_way_is_read_again(root, monkeypatch):
    uri = store.join(root, "state.json")
    store.create_json(uri, {"done": 5})
    whole, answers = store.read_bytes(uri), []

    def read(_):
        answers.append(whole if answers else whole[:-3])
        return answers[-1]

    monkeypatch.setattr(store, "read_bytes", read)
    if root.startswith("file:"):  # a disk does not cut short
        with pytest.raises(CorruptError, match="is not JSON"):
            store.read_json(uri)
    else:
        assert store.read_json(uri) == {"done": 5}
        assert len(answers) == 2


def test_json_that_is_none_is_named(root):
    uri = store.join(root, "broken.json")
    store.create_bytes(uri, b'{"half": ')
    with pytest.raises(CorruptError, match=r"broken\.json is not JSON"):
        store.read_json(uri)
    with pytest.raises(ValueError, match="not JSON compliant"):
        store.create_json(store.join(root, "nan.json"), {"score": float("nan")})
    assert not store.exists(store.join(root, "nan.json"))


def test_wrong_credentials_are_not_retried(s3_root, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    start = time.monotonic()
    with pytest.raises(AccessError, match="access refused") as failure:
        store.create_bytes(store.join(s3_root, "x"), b"x")
    assert time.monotonic() - start < 2
    assert "wrong" not in str(failure.value)


def test_a_server_that_is_down_is_named_after_the_retries(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.setitem(s3.RETRY, "max_retries", 2)
    monkeypatch.setitem(
        s3.RETRY, "backoff", {"init_backoff": timedelta(milliseconds=10), "base": 2}
    )
    s3._client.cache_clear()
    with pytest.raises(UnavailableError, match=r"s3://petalign/x.*127\.0\.0\.1:9"):
        store.read_bytes("s3://petalign/x")
    with pytest.raises(UnavailableError):
        store.create_bytes("s3://petalign/x", b"x")


def test_a_bucket_that_does_not_exist_is_named(s3_root):
    with pytest.raises(UriError, match="bucket does not exist"):
        store.read_bytes("s3://no-such-bucket-here/x")


def test_a_file_in_the_way_of_a_folder_is_named(tmp_path):
    store.create_bytes(f"{tmp_path}/a", b"x")
    with pytest.raises(UriError, match="has the name of a folder"):
        store.create_bytes(f"{tmp_path}/a/b", b"x")


def _use_s3(uri: str, answer) -> None:
    try:
        store.read_bytes(uri)
    except StorageError as error:
        answer.put(str(error))


def test_a_forked_process_fails_at_once_instead_of_waiting_for_ever(s3_root, recwarn):
    store.create_bytes(store.join(s3_root, "x"), b"x")
    context = multiprocessing.get_context("fork")
    answer = context.Queue()
    child = context.Process(target=_use_s3, args=(store.join(s3_root, "x"), answer))
    child.start()
    try:
        assert "spawn" in answer.get(timeout=10)
    finally:
        child.kill()
        child.join()
