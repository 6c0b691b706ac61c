"""A network, a published volume, and a cluster in this process, for predictions that are real."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

if find_spec("tensorflow") is None:
    collect_ignore_glob = ["test_*"]

from distributed import Client

from alignment.predicting.driver import run_prediction
from alignment.predicting.runs import prepare
from alignment.stages import predict
from inference.overlap import predict_block
from storage.store import join, replace_bytes
from tests.networks import model_file
from tests.published import publish_aligned, texture

SETTINGS = {
    "patches": {"patch_px": [10, 38, 38], "margin_px": [3, 3, 3]},
    "volume": {"shard": [8, 64, 64], "chunk": [8, 32, 32]},
}
"""Steps of (4, 32, 32) in a volume of (8, 100, 90): four shards."""


@pytest.fixture(scope="session")
def cluster():
    """In threads: TensorFlow is imported once. Killed processes are in `tests.pipeline`."""
    with Client(
        processes=False, n_workers=2, threads_per_worker=1, dashboard_address=":0"
    ) as client:
        yield client


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    uri = (tmp_path_factory.mktemp("models") / "model.keras").as_uri()
    replace_bytes(uri, model_file())
    return uri


@pytest.fixture(scope="session")
def image():
    return texture()


@pytest.fixture(scope="session")
def aligned(tmp_path_factory, image):
    uri = tmp_path_factory.mktemp("aligned").as_uri()
    publish_aligned(uri, image, mips=2)
    return uri


@pytest.fixture
def prepare_run(aligned, model, tmp_path):
    """Return a function that prepares a prediction of the volume below `tmp_path`."""

    def prepare_run(settings=SETTINGS, *, source=aligned, of=model, at=None, to="out"):
        return prepare(source, of, join(tmp_path.as_uri(), to), settings, at=at)

    return prepare_run


@pytest.fixture
def values_of(cluster, monkeypatch):
    """Return a function that does a prediction and returns the values before they are stored."""
    noted = {}

    def noting(network, voxels, grid, start, stop, *, encode, dtype, **how):
        values = predict_block(network, voxels, grid, start, stop, **how)
        noted[start] = (network.backend, values)
        return encode(values)

    def values_of(prepared):
        noted.clear()
        run_prediction(prepared.run_uri, cluster)
        assert {backend for backend, _ in noted.values()} == {prepared.layout.backend}
        return {start: values for start, (_, values) in noted.items()}

    monkeypatch.setattr(predict, "predict_block", noting)
    return values_of
