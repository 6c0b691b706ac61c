"""What nobody can reach goes, and nothing else, whatever happens meanwhile."""

from __future__ import annotations

import pytest

from storage import gc, ledger, store, volume
from storage.errors import ConflictError, MissingError
from storage.gc import collect
from storage.publish import (
    change_condemned,
    condemned,
    publish,
    read_pointer,
    rollback,
    versions,
)


def make_run(root: str, key: str) -> str:
    run_uri = store.join(root, "runs", key)
    store.create_json(store.join(run_uri, "run.json"), {"key": key})
    ledger.touch(run_uri)
    volume.create_image(
        store.join(run_uri, "aligned"), shape=(2, 16, 16), chunk=(1, 16, 16), shard=None,
        resolution_nm=(40.0, 4.0, 4.0), mips=1, name=key,
    )  # fmt: skip
    return run_uri


def runs(root: str) -> list[str]:
    keys = store.list_names(store.join(root, "runs"))
    return [key for key in keys if any(store.walk(store.join(root, "runs", key)))]


def test_the_last_versions_stay_and_older_ones_go(root):
    for key in "abcd":
        make_run(root, key)
        publish(root, key)
    make_run(root, "unpublished")
    planned = collect(root, keep=2, grace_s=0, dry_run=True)
    assert planned.deleted == ("a", "b", "unpublished")
    assert runs(root) == ["a", "b", "c", "d", "unpublished"]

    done = collect(root, keep=2, grace_s=0)
    assert done.deleted == planned.deleted
    assert (done.objects, done.bytes) == (planned.objects, planned.bytes)
    assert runs(root) == ["c", "d"]
    assert done.kept == {"c": "it is among the last 2 published runs", "d": "it is published"}
    assert [v.run for v in versions(root)] == ["c", "d"]
    assert condemned(root) == ()
    assert read_pointer(root).epoch == 4
    assert collect(root, keep=2, grace_s=0).deleted == ()


def test_within_the_grace_period_nothing_goes(root):
    for key in "ab":
        make_run(root, key)
        publish(root, key)
    make_run(root, "begun")
    kept = collect(root, keep=1, grace_s=3600).kept
    assert kept == {
        "a": "it was the published run within the grace period",
        "b": "it is published",
        "begun": "somebody worked on it within the grace period",
    }


def test_the_run_that_a_roll_back_brought_back_is_the_published_one(root):
    for key in "ab":
        make_run(root, key)
        publish(root, key)
    rollback(root)
    assert collect(root, keep=1, grace_s=0).deleted == ("b",)
    assert read_pointer(root).run == "a"


def test_a_condemned_run_cannot_be_published(root):
    for key in "ab":
        make_run(root, key)
    publish(root, "a")
    change_condemned(root, add=["b"])
    with pytest.raises(ConflictError, match=r"run b of .* is being deleted"):
        publish(root, "b")
    with pytest.raises(ConflictError, match=r"run a of .* was published meanwhile"):
        change_condemned(root, add=["a"])


def test_who_publishes_first_wins_against_the_collection(root, monkeypatch):
    for key in "ab":
        make_run(root, key)
    publish(root, "a")
    real = gc.change_condemned

    def overtaken(volume_uri, *, add=(), drop=()):
        if "b" in add:
            publish(volume_uri, "b")
        real(volume_uri, add=add, drop=drop)

    monkeypatch.setattr(gc, "change_condemned", overtaken)
    done = collect(root, keep=1, grace_s=0)
    assert done.deleted == ()
    assert done.kept["b"] == "somebody began to work on it or published it"
    assert read_pointer(root).run == "b"


def test_who_begins_to_work_first_wins_against_the_collection(root, monkeypatch):
    run_uri = make_run(root, "b")
    age_s = store.age_s
    aged = {"s": 100.0}
    monkeypatch.setattr(store, "age_s", lambda uri: age_s(uri) + aged["s"])
    real = gc.change_condemned

    def overtaken(volume_uri, *, add=(), drop=()):
        if add:
            ledger.touch(run_uri)
            aged["s"] = 0.0
        real(volume_uri, add=add, drop=drop)

    monkeypatch.setattr(gc, "change_condemned", overtaken)
    assert collect(root, keep=1, grace_s=50).deleted == ()
    assert runs(root) == ["b"]
    assert condemned(root) == ()


def test_a_collection_that_was_killed_is_finished_by_the_next(root, monkeypatch):
    for key in "ab":
        make_run(root, key)
        publish(root, key)
    with monkeypatch.context() as patch:
        deletions = iter([None, None])

        def dying(uri):
            next(deletions)

        patch.setattr(store, "delete", dying)
        with pytest.raises(RuntimeError):
            collect(root, keep=1, grace_s=0)
    assert condemned(root) == ("a",)
    with pytest.raises(ConflictError):
        rollback(root, "a")
    assert collect(root, keep=1, grace_s=3600).deleted == ("a",)
    assert runs(root) == ["b"]
    assert condemned(root) == ()


def test_a_volume_of_which_nothing_was_published_is_collected_too(root):
    make_run(root, "a")
    assert collect(root, grace_s=0).deleted == ("a",)
    assert read_pointer(root) is None
    make_run(root, "b")
    assert publish(root, "b").epoch == 1


def test_limits_are_checked(root):
    with pytest.raises(ValueError, match="keep must be 1 or more"):
        collect(root, keep=0)
    with pytest.raises(MissingError, match="nothing to roll back"):
        rollback(root)
