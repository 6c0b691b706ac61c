"""A small phantom, and a cluster in this process, for tests that run the stages for real."""

import pytest
from distributed import Client

from alignment.commands.sample import write_phantom
from alignment.phantom import PhantomConfig
from alignment.runs import prepare
from alignment.stages import ORDER, run_stage

CONFIG = {
    "volume": {"aligned_shard": [4, 256, 256], "aligned_chunk": [4, 64, 64]},
}


@pytest.fixture(scope="session")
def cluster():
    with Client(
        processes=False, n_workers=2, threads_per_worker=1, dashboard_address=":0"
    ) as client:
        yield client


@pytest.fixture(scope="session")
def phantom(tmp_path_factory):
    """Eight sections of 384 x 384 px with a blank one, a fold, and a known misalignment."""
    uri = (tmp_path_factory.mktemp("phantom") / "raw.zarr").as_uri()
    defects = {"fold_section": 5, "blank_section": 3, "corner_section": None}
    write_phantom(uri, PhantomConfig(sections=8, height=384, width=384, seed=3, **defects))
    return uri


@pytest.fixture(scope="session")
def aligned_run(phantom, cluster, tmp_path_factory):
    """The phantom aligned by all stages; returns the run's URI."""
    run_uri = prepare(phantom, (tmp_path_factory.mktemp("aligned") / "out.zarr").as_uri(), CONFIG)
    for stage in ORDER:
        run_stage(stage, run_uri, cluster)
    return run_uri
