"""A network makes the features of a run, frozen by its content."""

import numpy as np
import pytest

from alignment.attachments import feature_network
from alignment.errors import ConfigError, DataError
from alignment.runs import load, prepare
from alignment.stages import ORDER, inputs, run_stage
from alignment.updates import changed_settings
from inference.model_file import digest, encode
from inference.shipped import SHIPPED
from storage.store import read_json
from storage.volume import open_array
from tests.inference.networks import drawn
from tests.pipeline.conftest import CONFIG


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(encode(drawn(widths=(4,), grey_zero=128.0, grey_unit=64.0)))
    return path


def config(path):
    return {**CONFIG, "features": {"kind": "nccnet", "model": path.as_uri()}}


@pytest.mark.slow
def test_a_run_matches_by_what_its_network_makes(phantom, cluster, tmp_path, model):
    run_uri = prepare(phantom, (tmp_path / "out.zarr").as_uri(), config(model))
    run = load(run_uri)
    assert run.attachments == {"features": digest(model.read_bytes())}
    for stage in ORDER[: ORDER.index("filter") + 1]:
        run_stage(stage, run_uri, cluster)
    features = inputs.read_row(open_array(run_uri, "features/1"), 0)
    valid = inputs.valid(run, 0, 1)
    assert not features[~valid].any()
    assert features[valid].astype(np.float64).std() == pytest.approx(1, abs=0.02)
    trusted = read_json(f"{run_uri}/state/filter.json")
    assert trusted["status"] == "done"


def test_a_network_that_was_changed_is_another_setting_and_not_used(phantom, tmp_path, model):
    first = prepare(phantom, (tmp_path / "a.zarr").as_uri(), config(model))
    model.write_bytes(encode(drawn(widths=(4,), seed=2)))
    second = prepare(phantom, (tmp_path / "b.zarr").as_uri(), config(model))
    before, now = (read_json(f"{uri}/run.json") for uri in (first, second))
    assert changed_settings(before, now) == ("features.model",)
    with pytest.raises(DataError, match="was changed since the run was made"):
        feature_network(model.as_uri(), before["features"])


def test_what_is_no_network_is_refused_before_anything_is_written(phantom, tmp_path, model):
    volume = tmp_path / "out.zarr"
    model.write_bytes(b"\x80\x04pickle")
    with pytest.raises(DataError, match=r"features\.model: .*is not a model of petalign"):
        prepare(phantom, volume.as_uri(), config(model))
    model.write_bytes(encode(drawn(widths=(4,), channels=2)))
    with pytest.raises(DataError, match="makes 2 images, and matching takes one"):
        prepare(phantom, volume.as_uri(), config(model))
    with pytest.raises(ConfigError, match="set kind=nccnet to match by the network"):
        prepare(phantom, volume.as_uri(), {**CONFIG, "features": {"model": model.as_uri()}})
    assert not volume.exists()


def test_the_shipped_network_is_taken_where_none_is_named(phantom, tmp_path):
    run_uri = prepare(
        phantom, (tmp_path / "out.zarr").as_uri(), {**CONFIG, "features": {"kind": "nccnet"}}
    )
    frozen = load(run_uri).attachments["features"]
    assert frozen == digest(SHIPPED.read_bytes())
    assert feature_network("", frozen).config.channels == 1
    with pytest.raises(
        DataError, match=r"the shipped network nccnet-small\.safetensors was changed"
    ):
        feature_network("", "0" * 64)
