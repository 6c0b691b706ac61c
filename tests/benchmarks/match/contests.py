"""What is compared in the tables of matching."""

from __future__ import annotations

from functools import partial

import numpy as np

from tests.benchmarks.match.matchers import (
    PEERS,
    Task,
    assert_equal,
    by_engine,
    in_threads,
    make_task,
)
from tests.benchmarks.rounds import Contest

SIZES = ((64, 128), (160, 256), (160, 320), (224, 320), (224, 512))
"""Sides of templates and search windows, px."""


def contest(template_px: int, window_px: int, *, nodes: int = 16, threads: int = 1) -> Contest:
    """Compare the engine with its peers on one size; their answers are checked to be equal.

    The work is one section against three neighbours on a grid of nodes. The engine also matches
    pair by pair, as the units of a run do, a run of eight sections, whose windows are shared too,
    and sections with bands of invalid pixels, which peers cannot leave out.
    """
    plain = make_task(template_px, window_px, nodes=nodes)
    by_pair = plain.jobs[np.argsort(plain.jobs[:, 0], kind="stable")]
    chain = make_task(template_px, window_px, nodes=nodes, sections=8, all_pairs=True)
    holed = make_task(template_px, window_px, nodes=nodes, holes=0.02)
    count = len(plain.jobs)
    ways = {
        "petalign, three neighbours": partial(in_threads, by_engine, plain, plain.jobs, threads),
        "petalign, pair by pair": partial(in_threads, by_engine, plain, by_pair, threads),
        "petalign, eight sections": partial(in_threads, by_engine, chain, chain.jobs, threads),
        "petalign, 2 % invalid": partial(in_threads, by_engine, holed, holed.jobs, threads),
    }
    shares = {"petalign, eight sections": len(chain.jobs) / count}
    ours = by_engine(plain, plain.jobs)
    for name, (matcher, share) in PEERS.items():
        some = _every(plain, share)
        assert_equal(ours[some], matcher(plain, plain.jobs[some]))
        ways[name] = partial(in_threads, matcher, plain, plain.jobs[some], threads)
        shares[name] = len(some) / count
    threaded = "" if threads == 1 else f", {threads} threads"
    return Contest(
        f"{template_px} px in {window_px} px{threaded}",
        float(count),
        ways,
        unit="matches",
        per=1.0,
        shares=shares,
    )


def _every(task: Task, share: float) -> list[int]:
    return list(range(0, len(task.jobs), max(1, round(1 / share))))
