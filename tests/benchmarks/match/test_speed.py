"""The contests of matching, once and small; `make bench-match` prints the tables."""

import pytest

from tests.benchmarks.match import sections
from tests.benchmarks.match.bounds import bound
from tests.benchmarks.match.contests import contest
from tests.benchmarks.match.matchers import assert_equal, by_engine, by_opencv, make_task
from tests.benchmarks.rounds import hold


@pytest.mark.slow
@pytest.mark.parametrize("threads", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_the_engine_and_its_peers_find_the_same(benchmark, threads):
    results = benchmark.pedantic(
        lambda: hold(contest(32, 64, nodes=3, threads=threads), 1), rounds=1
    )
    assert len(results) == 7
    assert all(result.per_s > 0 for result in results)


def test_other_answers_are_noticed():
    task = make_task(32, 64, nodes=3)
    ours = by_engine(task, task.jobs)
    theirs = by_opencv(task, task.jobs)
    for column, error in ((0, 2.0), (2, 0.002)):
        wrong = theirs.copy()
        wrong[4, column] += error
        with pytest.raises(AssertionError):
            assert_equal(ours, wrong)


def test_a_whole_section_against_three_neighbours(benchmark):
    """512 px; 8192 px in `make bench-match`."""
    found = benchmark.pedantic(sections.match_section, (512,), rounds=1)
    assert found["matched"] > 0.7


def test_the_arithmetic_of_a_match_is_counted():
    # 160 in 256: 8 groups of 16 frequencies; 8 + 8 columns and a third of 5 + 8; twice 8 + 4.
    assert bound(160, 256).transforms == pytest.approx(16 + 13 / 3 + 24)
