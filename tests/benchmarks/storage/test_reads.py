"""How fast a volume is read; `python -m tests.benchmarks.storage.table` prints ratios instead."""

from __future__ import annotations

import numpy as np
import pytest

from tests.benchmarks import rounds
from tests.benchmarks.rounds import Contest, hold, markdown
from tests.benchmarks.storage import contests, readers


@pytest.mark.filterwarnings("ignore")  # of the peers
@pytest.mark.parametrize("ways", [readers.from_s3, readers.from_disk])
def test_every_way_reads_the_same_voxels(site, ways):
    boxes = [*site.shards[:2], *site.cutouts(3)]
    for name, read in ways(site).items():
        for box in boxes:
            np.testing.assert_array_equal(read(box), site.voxels[box.slices], err_msg=name)


@pytest.mark.filterwarnings("ignore")  # of the peers
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(
            make,
            id=make.__name__,
            marks=[] if make in (contests.cutouts_s3, contests.cached_voxels) else pytest.mark.slow,
        )
        for make in contests.CONTESTS
    ],
)
def test_speed(benchmark, site, make):
    """One turn of each way; a mm3 at 8 nm has 15 thousand times the voxels of the real scale."""
    if make is contests.training:
        pytest.importorskip("tensorflow", reason="the extra `train` is not installed")
    contest = make(site)
    results = benchmark.pedantic(hold, (contest, site.scale.rounds), rounds=1)
    assert [r.way for r in results] == list(contest.ways)
    assert all(r.per_s > 0 for r in results)
    assert contest.title in markdown(contest, results)


@pytest.mark.slow
def test_a_contest_compares_within_rounds(monkeypatch):
    """Of two ways one takes twice as long as the other, and every round is slower than the last."""
    now = {"s": 0.0}
    turns: list[str] = []

    def spend(name: str, seconds: float):
        def work() -> None:
            now["s"] += seconds * 10 ** (len(turns) // 2)
            turns.append(name)

        return work

    monkeypatch.setattr(rounds.time, "perf_counter", lambda: now["s"])
    monkeypatch.setattr(rounds.time, "process_time", lambda: 3 * now["s"])
    ways = {"long": spend("long", 2), "short": spend("short", 1)}
    found = hold(Contest("t", 10**6, ways), 4)
    assert turns == ["long", "short", *["long", "short", "short", "long"] * 2]
    assert found[0].ratio == 1
    assert (found[1].lowest, found[1].ratio, found[1].highest) == pytest.approx((2, 2, 2))
    assert found[1].cpu_ratio == pytest.approx(2)
