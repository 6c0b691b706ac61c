"""A prediction by the engine, from S3 to S3, while processes that do it are killed."""

from __future__ import annotations

import os
import signal
import time

import pytest

from alignment.blockwise import local_client
from alignment.predicting import driver
from alignment.predicting.runs import prepare
from inference import native
from storage import ledger
from storage.commit import manifest, records
from storage.commit.verify import verify_volume
from storage.store import join, replace_bytes
from tests.faults.server import new_root, pointed_to, s3_server
from tests.networks import model_file
from tests.published import publish_aligned, texture

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(native.widest() is None, reason="the kernels are not built"),
]

SETTINGS = {
    "patches": {"patch_px": [10, 38, 38], "margin_px": [3, 3, 3], "join": "blend"},
    "network": {"backend": "engine"},
    "volume": {"shard": [8, 32, 32], "chunk": [8, 32, 32]},
}


@pytest.fixture
def bucket():
    with s3_server() as endpoint, pointed_to(endpoint):
        yield new_root()


def wait_for(run_uri, shards):
    until = time.monotonic() + 120
    while len(records.recorded(run_uri, "predict", "shards")) < shards:
        assert time.monotonic() < until, ledger.read_state(run_uri, "predict")
        time.sleep(0.02)


def kill(client, driving, *, is_driver):
    """Kill the worker on which the driver runs, or one on which it does not."""
    holders = {worker for worker, keys in client.processing().items() if driving.key in keys}
    pids = client.run(os.getpid)
    victim = next(worker for worker in pids if (worker in holders) == is_driver)
    os.kill(pids[victim], signal.SIGKILL)


def test_killed_workers_and_drivers_leave_the_digest(bucket):
    source, model = join(bucket, "aligned"), join(bucket, "model.keras")
    publish_aligned(source, texture((13, 170, 150)))
    replace_bytes(model, model_file())
    calm, hurt = (prepare(source, model, join(bucket, to), SETTINGS) for to in ("calm", "hurt"))
    assert calm.layout.backend == "engine"
    with local_client(2) as client:
        driver.run_prediction(calm.run_uri, client)
        driving = client.submit(driver.run, hurt.run_uri, pure=False)
        for shards, is_driver in ((8, False), (24, True)):
            wait_for(hurt.run_uri, shards)
            kill(client, driving, is_driver=is_driver)
        done = driving.result(120)
        state = ledger.read_state(hurt.run_uri, "predict")
    assert (state.status, done) == ("done", hurt.figures.units + 1), state
    assert state.epoch == 2  # a second driver took over
    assert manifest.run_root(hurt.run_uri) == manifest.run_root(calm.run_uri)
    assert verify_volume(join(bucket, "hurt"), full=True).is_clean
