"""Two at once: one winner each, epochs that only grow, and readers who never see a mix."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise

import pytest

import storage
from storage import store
from storage.commit.verify import verify_volume
from storage.errors import ConflictError
from storage.publish import publish, read_pointer, versions
from tests.faults import child, server, tiny, workload
from tests.faults.fault import Fault
from tests.faults.sweep import differences, snapshot

RUNS = 4
SLOW = [pytest.mark.slow, pytest.mark.timeout(1800)]


def lost_answers(seed: int) -> Fault:
    """Return a fault that loses 30 % of the answers to writes, for ever."""
    return Fault(
        "lost answer", times=10**9, chance=0.3, seed=seed, matching=lambda o: o.method == "PUT"
    )


class Readers:
    """Open the published version in a loop, and note every view that is not of one run."""

    def __init__(self, volume_uri: str) -> None:
        self.volume_uri = volume_uri
        self.views = 0
        self.mixed: list[str] = []
        self.stop = threading.Event()

    def run(self) -> None:
        """Read until told to stop."""
        known = {tiny.key_of(n): n for n in range(RUNS)}
        last = 0
        while not self.stop.is_set():
            epoch = read_pointer(self.volume_uri).epoch
            if epoch < last:
                self.mixed.append(f"epoch {epoch} after {last}")
            last = epoch
            view = storage.open_aligned(self.volume_uri)
            n = known[view.attrs["run"]]
            data = view.to_numpy()
            for z in range(tiny.SECTIONS):
                if set(data[z].ravel()) != {10 * n + z + 1}:
                    self.mixed.append(f"run {n}, section {z}: {sorted(set(data[z].ravel()))}")
            self.views += 1


@contextmanager
def reading(volume_uri: str, how_many: int = 2) -> Iterator[Readers]:
    """Let readers loop beside the block."""
    readers = Readers(volume_uri)
    with ThreadPoolExecutor(how_many) as pool:
        loops = [pool.submit(readers.run) for _ in range(how_many)]
        try:
            yield readers
        finally:
            readers.stop.set()
    for loop in loops:
        loop.result()


def race(volume_uri: str, number: int) -> Counter[str]:
    """Publish two runs at once; say who won."""
    before = read_pointer(volume_uri)
    others = [n for n in range(RUNS) if before is None or tiny.key_of(n) != before.run]
    contenders = others[number % len(others)], others[(number + 1) % len(others)]
    seen = before.epoch if before else 0
    start = threading.Barrier(2)
    only_if_unchanged = number % 2 == 0

    def attempt(n: int) -> int | None:
        start.wait()
        try:
            return publish(
                volume_uri, tiny.key_of(n), expected_epoch=seen if only_if_unchanged else None
            ).epoch
        except ConflictError:
            return None

    with ThreadPoolExecutor(2) as pool:
        epochs = list(pool.map(attempt, contenders))
    won = sorted(epoch for epoch in epochs if epoch is not None)
    now = read_pointer(volume_uri)
    if only_if_unchanged:
        assert won == [seen + 1], "exactly one may win"
        assert now.run == tiny.key_of(contenders[epochs.index(seen + 1)])
    else:
        assert won == [seen + 1, seen + 2], "each gets an epoch of its own"
        assert now.run == tiny.key_of(contenders[epochs.index(seen + 2)])
    assert now.epoch == won[-1]
    return Counter(races=1, publications=len(won))


def run_races(volume_uri: str, n: int) -> Readers:
    """Race, with readers beside it, and check the history."""
    for each in range(RUNS):
        tiny.finish(volume_uri, each)
    total = race(volume_uri, 1)
    with reading(volume_uri) as readers:
        for number in range(n - 1):
            total += race(volume_uri, number)
    assert total["races"] == n
    assert readers.mixed == []
    assert readers.views > n / 4
    history = versions(volume_uri)
    assert [v.epoch for v in history] == list(range(1, total["publications"] + 1))
    assert all(a.run != b.run for a, b in pairwise(history))
    assert verify_volume(volume_uri, full=True, runs="all").problems == ()
    root = store.read_json(store.join(volume_uri, "zarr.json"))
    assert root["attributes"]["petalign"]["run"] == history[-1].run
    return readers


@pytest.mark.parametrize("n", [40, pytest.param(200, marks=SLOW)])
def test_one_winner_each_on_disk(tmp_path, n):
    run_races(tmp_path.as_uri(), n)


@pytest.mark.parametrize("n", [6, pytest.param(200, marks=SLOW)])
def test_one_winner_each_in_s3(s3, n):
    run_races(s3, n)


@pytest.mark.parametrize("n", [6, pytest.param(200, marks=SLOW)])
def test_one_winner_each_where_answers_are_lost(proxied, n):
    proxy, root = proxied
    for each in range(RUNS):
        tiny.finish(root, each)
    fault = lost_answers(n)
    proxy.install(fault)
    publications = 0
    for number in range(n):
        publications += race(root, number)["publications"]
    proxy.install(None)
    assert len(fault.struck) > n
    assert [v.epoch for v in versions(root)] == list(range(1, publications + 1))
    assert verify_volume(root, full=True, runs="all").problems == ()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return workload.write_source(tmp_path_factory.mktemp("source") / "raw.tif")


def duplicates(source: str, root: str, environment: dict[str, str]) -> int:
    """Start two drivers of the same run at once, and a third one after them; return who ended."""
    drivers = [child.start(workload.ours, source, root, environment=environment) for _ in range(2)]
    ends = [driver.wait() for driver in drivers]
    for end in ends:
        assert end.success or "stopped from outside" in end.error, end.error
    last = child.start(workload.ours, source, root, environment=environment).wait()
    assert last.success, last.error
    return sum(end.success for end in ends)


@pytest.mark.parametrize("n", [2, pytest.param(30, marks=SLOW)])
@pytest.mark.parametrize("answers", ["arrive", "get lost"])
def test_two_drivers_of_one_run_leave_what_one_leaves(source, proxied, n, answers):
    proxy, golden = proxied
    environment = server.settings(proxy.endpoint)
    assert child.start(workload.ours, source, golden, environment=environment).wait().success
    wanted = snapshot(golden)
    for number in range(n):
        root = server.new_root()
        if answers == "get lost":
            proxy.install(lost_answers(number))
        duplicates(source, root, environment)
        proxy.install(None)
        assert differences(snapshot(root), wanted) == ""
        assert verify_volume(root, full=True, runs="all").problems == ()
