"""What a unit costs beside its work, small; the table of docs/performance.md has up to 10^5."""

import pytest
from distributed import Client

from alignment.runs import load
from alignment.stages.work import Work
from tests.benchmarks.runner.measure import drive, prepared
from tests.benchmarks.runner.noop import STAGE, phase


@pytest.fixture(scope="module")
def client():
    with Client(
        processes=False, n_workers=2, threads_per_worker=1, dashboard_address=":0"
    ) as client:
        yield client


def test_units_through_the_runner(benchmark, client, tmp_path):
    """300 units; one pair of sections of a 1 mm2 stack has some hundred blocks of nodes."""
    folders = iter(range(1000))

    def run():
        folder = tmp_path / str(next(folders))
        return drive(prepared(folder), 300, client)

    seconds, sealing = benchmark.pedantic(run, rounds=1)
    assert 0 < sealing < seconds


def test_a_units_key_reads_no_metadata_of_packages(tmp_path, monkeypatch):
    """It took 20 ms a unit, twenty times what the rest of the runner takes."""
    run = load(prepared(tmp_path))
    made = phase(3)
    work = Work.of(STAGE, made, run)
    work(made.units[0])

    def read(_):
        raise AssertionError("the versions of libraries are read once a process")

    monkeypatch.setattr("importlib.metadata.version", read)
    assert work(made.units[1]).items() >= {"n": 1, "bytes_written": 0}.items()
