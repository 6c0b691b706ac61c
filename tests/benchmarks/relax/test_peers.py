"""The peers of relaxation, once and small."""

import pytest

from tests.benchmarks.relax.peers import CG, DIRECT, FIRE, WAYS, race
from tests.benchmarks.relax.problems import make_problem


@pytest.fixture(scope="module")
def problem():
    return make_problem(5, 9, 12)


@pytest.mark.slow
def test_all_ways_reach_one_energy(problem):
    pytest.importorskip("pyamg")
    rows = race(problem, (DIRECT, *WAYS), 1e-6, rounds=1)
    assert [row.name for row in rows] == [way.name for way in (DIRECT, *WAYS)]
    assert all(row.excess <= 1e-6 for row in rows)
    assert rows[0].slower == 1


def test_a_way_that_cannot_reach_the_goal_is_left_out(problem):
    rows = race(problem, (DIRECT, FIRE), 1e-6, rounds=1, most_steps=3)
    assert [row.name for row in rows] == [DIRECT.name]


def test_tolerances_are_tried_from_the_loosest_on(problem):
    by_tolerance = CG._replace(name="by tolerance", efforts=(1, 40, 200))
    (row,) = race(problem, (by_tolerance,), 1e-3, rounds=1)
    assert row.effort == 40
