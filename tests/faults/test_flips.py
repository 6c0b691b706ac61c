"""Damaged shards are noticed by reading and by checking, and mended to what they were."""

from __future__ import annotations

import pytest

from tests.faults.flips import LAYOUTS, count, count_plain


@pytest.mark.parametrize(
    "n", [300, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_every_damage_is_noticed_and_mended(n):
    tally = count(n, seed=n)
    assert tally.tried.total() == n
    assert tally.read == tally.tried
    assert tally.verify == tally.tried
    assert tally.mended == tally.tried
    assert tally.quick["truncation"] == tally.tried["truncation"]  # a listing shows sizes


def test_plain_zarr_does_not_notice():
    """What the checks are for: the same damages, zarr's own defaults."""
    tried, silent = count_plain(20 * len(LAYOUTS), seed=1)
    assert silent["flipped bit"] > 0.2 * tried["flipped bit"]
