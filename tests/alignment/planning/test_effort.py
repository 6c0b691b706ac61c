"""What a unit took is told to the driver: its own share of the process's time, and its memory."""

import numpy as np
import pytest

from alignment.planning.effort import CLOCK, Clock


def test_units_side_by_side_share_the_time_of_their_process():
    now = iter([0.0, 10.0, 16.0, 20.0])
    clock = Clock(lambda: next(now))
    with clock.measured() as first, clock.measured() as second:
        pass
    assert (first.busy_s, second.busy_s) == (pytest.approx(10 + 3 + 4), pytest.approx(3))


def test_time_between_units_is_nobodys():
    now = iter([1.0, 2.0, 50.0, 51.0])
    clock = Clock(lambda: next(now))
    with clock.measured() as first:
        pass
    with clock.measured() as second:
        pass
    assert (first.busy_s, second.busy_s) == (1.0, 1.0)


def test_the_peak_is_of_the_unit_and_not_of_the_one_before():
    with CLOCK.measured() as large:
        np.ones(40_000_000)
    with CLOCK.measured() as small:
        np.ones(1000)
    assert large.peak_bytes > small.peak_bytes + 200_000_000


def test_a_unit_that_fails_does_not_count_on():
    now = iter([0.0, 1.0, 5.0, 7.0])
    clock = Clock(lambda: next(now))
    with pytest.raises(ValueError, match="broken"), clock.measured():
        raise ValueError("broken")
    with clock.measured() as after:
        pass
    assert after.busy_s == 2.0
