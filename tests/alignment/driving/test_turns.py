"""Blocks of one worker: one is computed, while the next is read and the last written."""

from __future__ import annotations

import threading
import time

import pytest
from distributed import Client

from alignment.blockwise import let_next_begin, own_worker, run_blocks
from alignment.driving.turns import Step, own_turn

READ, COMPUTED, WRITTEN = "read", "computed", "written"


@pytest.fixture(scope="module")
def client():
    with Client(
        processes=False, n_workers=2, threads_per_worker=1, dashboard_address=":0"
    ) as client:
        yield client


class Diary:
    """Which blocks are at which step, and the most at a time, by worker."""

    def __init__(self):
        self.lock, self.at, self.most = threading.Lock(), {}, {}
        self.seen = set()

    def enter(self, step):
        key = own_worker(), step
        with self.lock:
            self.at[key] = self.at.get(key, 0) + 1
            self.most[key] = max(self.most.get(key, 0), self.at[key])
            self.seen.add(frozenset(s for (w, s), n in self.at.items() if n and w == key[0]))

    def leave(self, step):
        with self.lock:
            self.at[own_worker(), step] -= 1


# Workers are threads of this process and see the same objects.
DIARY = Diary()
RELEASE, BEGUN = threading.Event(), []


def spend(step, seconds):
    DIARY.enter(step)
    time.sleep(seconds)
    DIARY.leave(step)


def work(block):
    spend(READ, 0.01)
    with own_turn() as turn:
        turn.take(Step.COMPUTE)
        spend(COMPUTED, 0.02)
        if block == 3:
            raise ValueError("a block that fails")
        turn.take(Step.WRITE)
        spend(WRITTEN, 0.03)  # the slowest, so that blocks would heap up
    return block


def test_steps_of_blocks_overlap_and_no_more_than_one_is_at_each(client):
    outcomes = list(run_blocks(work, range(12), client))
    assert sorted(o.value for o in outcomes if o.error is None) == [*range(3), *range(4, 12)]
    assert {key[0] for key in DIARY.most} == set(client.scheduler_info()["workers"])
    assert max(n for (_, step), n in DIARY.most.items() if step != READ) == 1
    assert any({COMPUTED, WRITTEN} <= steps for steps in DIARY.seen)
    assert not any(DIARY.at.values())


def held(block):
    BEGUN.append(block)
    with own_turn() as turn:
        turn.take(Step.COMPUTE)
        RELEASE.wait(30)
    return block


def test_a_worker_takes_no_more_blocks_than_its_turns(client):
    futures = client.map(held, range(8), pure=False)
    until = time.monotonic() + 20
    while len(BEGUN) < 4 and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.2)  # for one too many to begin
    found = len(BEGUN)
    RELEASE.set()
    assert client.gather(futures) == list(range(8))
    assert found == 4  # two workers: a block that is computed, and one that was read


def test_turns_are_taken_outside_of_workers_too():
    assert own_worker() == ""
    let_next_begin()
    for _ in range(2):
        with own_turn() as turn:
            turn.take(Step.COMPUTE)
            turn.take(Step.WRITE)
