"""One fault at every storage operation of a run: right in the end, or a clear error; never wrong.

The ordinary suite makes a sample of the trials, the slow tests make all of them and print the
table.
"""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from tests.faults import disk_sweep, server, sweep, workload
from tests.faults.patience import impatient
from tests.faults.proxy import FaultProxy
from tests.faults.verdict import BAD, show

ALL = 10**6
SLOW = [pytest.mark.slow, pytest.mark.timeout(3600)]
PROXIES = 3


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return workload.write_source(tmp_path_factory.mktemp("source") / "raw.tif")


@pytest.fixture(scope="module")
def proxies(s3_endpoint):
    with ExitStack() as stack:
        stack.enter_context(impatient())
        stack.enter_context(server.pointed_to(s3_endpoint))
        yield [stack.enter_context(FaultProxy(s3_endpoint)) for _ in range(PROXIES)]


@pytest.fixture(scope="module")
def golden(source, proxies):
    return sweep.golden(sweep.OURS, source, proxies[0])


@pytest.mark.parametrize("n", [10, pytest.param(ALL, marks=SLOW)])
def test_a_run_in_s3_ends_right_whatever_one_request_does(source, proxies, golden, n):
    plans = sweep.sample(sweep.plan(golden.operations), n, seed=1)
    trials = sweep.sweep(sweep.OURS, plans, source, golden, proxies)
    print(show(trials))
    assert len(trials) >= min(n, 500)
    assert [t for t in trials if t.verdict in BAD] == []


@pytest.mark.parametrize("n", [10, pytest.param(ALL, marks=SLOW)])
def test_a_reader_in_s3_gets_the_voxels_or_an_error(proxies, golden, n):
    kinds = [kind for kind in sweep.KINDS if not kind.startswith("kill")]
    plans = sweep.sample(sweep.plan(golden.reads, kinds), n, seed=1)
    trials = sweep.sweep_reads(sweep.OURS, plans, golden, proxies[0])
    print(show(trials))
    assert len(trials) >= min(n, 200)
    assert [t for t in trials if t.verdict in BAD] == []


@pytest.mark.parametrize("n", [8, pytest.param(ALL, marks=SLOW)])
def test_a_run_on_disk_ends_right_whatever_one_call_does(source, tmp_path, n):
    calls, objects = disk_sweep.golden(source, tmp_path)
    plans = sweep.sample(disk_sweep.plan(calls), n, seed=1)
    trials = disk_sweep.sweep(plans, source, objects)
    print(show(trials))
    assert len(trials) >= min(n, 1000)
    assert [t for t in trials if t.verdict in BAD] == []
