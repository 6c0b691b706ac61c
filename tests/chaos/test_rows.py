"""Rows of the fault matrix that have no other test."""

from __future__ import annotations

import os

import pytest

from tests.chaos.ground import ground
from tests.chaos.local_rows import ROWS
from tests.chaos.matrix import ARENA
from tests.chaos.platform_rows import Arena
from tests.chaos.runs import make_golden


@pytest.mark.slow
@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.fault)
def test_a_fault_on_a_cluster(row, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.environ.get("PYTHONPATH", "."))
    outcome = row.do()
    assert outcome.is_right, outcome.result


@pytest.fixture(scope="module")
def arena():
    with ground() as place, pytest.MonkeyPatch.context() as patch:
        for name, value in place.platform.environment().items():
            patch.setenv(name, value)
        yield Arena(place, make_golden(f"s3://{place.platform.bucket}")[0])


@pytest.mark.slow
@pytest.mark.platform
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("row", "do"), ARENA, ids=lambda each: getattr(each, "fault", ""))
def test_a_fault_on_the_platform(row, do, arena):
    outcome = do(arena)
    assert outcome.is_right, outcome.result
