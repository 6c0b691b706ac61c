"""What `petalign train unet` writes, run by the engine: over a volume, and to mask sections."""

from __future__ import annotations

import numpy as np
import pytest

from alignment.learning.segmentation.config import parse_segment_config
from alignment.learning.segmentation.train import train_segmentation
from alignment.stages.marked import MARGIN, mark
from inference import native
from inference.backends.files import on_engine
from inference.training.config import UNetConfig
from inference.training.files import MODEL
from inference.training.learner import build_network
from inference.training.record import saved
from inference.unet import segment
from storage import open_prediction
from storage.store import join, replace_bytes
from tests.alignment.learning.labelled_volume import voxels, write_zarr

pytestmark = pytest.mark.skipif(native.widest() is None, reason="the kernels are not built")

NETWORK = UNetConfig(layers=3, features_root=4, padding="same", head="sigmoid")
PATCHES = {"patch_px": [1, 96, 96], "margin_px": [0, 24, 24]}


def likely(model, image, config):
    """Return the probabilities of a section by Keras, seen whole."""
    return segment(model, image.astype(np.float32) / np.float32(255), config)[..., 0]


def test_a_membrane_network_runs_over_a_volume_without_tensorflow(
    prepare_run, values_of, aligned, image, tmp_path
):
    model = build_network(NETWORK, seed=3)
    file = join(tmp_path.as_uri(), MODEL)
    replace_bytes(file, saved(model))
    volume = {"shard": [8, 64, 64], "chunk": [8, 32, 32]}
    prepared = prepare_run({"patches": PATCHES, "volume": volume}, of=file)
    assert (prepared.layout.backend, prepared.layout.channels) == ("engine", 1)
    assert values_of(prepared)
    found = open_prediction(prepared.run_uri.rpartition("/runs/")[0]).values[0]
    inner = np.s_[24:-24, 24:-24]  # a prediction sees black beyond the volume, `segment` a mirror
    for z in (0, 5):
        expected = likely(model, image[z], NETWORK)[inner]
        assert np.ptp(expected) > 0.01
        assert np.abs(found[z][inner] / 255 - expected).max() < 0.6 / 255


@pytest.mark.parametrize("shape", [(200, 170), (90, 700)])
def test_a_defect_network_marks_what_it_would_mark_in_the_section_seen_whole(shape):
    model = build_network(NETWORK, seed=5)
    section = np.random.default_rng(1).integers(0, 255, shape, np.uint8)
    expected = likely(model, section, NETWORK)
    above = float(np.median(expected))
    found = mark(on_engine(saved(model), shrink=MARGIN), section, above)
    is_clear = np.abs(expected - above) > 1e-4
    assert is_clear.mean() > 0.5
    np.testing.assert_array_equal(found[is_clear], (expected > above)[is_clear])


@pytest.mark.slow
def test_from_training_to_prediction(prepare_run, values_of, tmp_path):
    write_zarr(str(tmp_path / "data"), *voxels())
    training = {
        "network": NETWORK.model_dump(), "patch_px": (1, 64, 64), "steps_per_epoch": 30,
        "epochs": 2, "held_out": 4, "learning_rate": 1e-2,
    }  # fmt: skip
    folder = join(tmp_path.as_uri(), "net")
    config = parse_segment_config({"training": training})
    row = train_segmentation(f"{tmp_path.as_uri()}/data", folder, config)
    assert float(row["best"]) > 0.5
    prepared = prepare_run({"patches": PATCHES}, of=join(folder, MODEL))
    assert prepared.layout.backend == "engine"
    assert values_of(prepared)
