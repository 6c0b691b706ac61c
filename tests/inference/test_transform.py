from __future__ import annotations

import sys
from contextlib import nullcontext
from functools import cache

import cv2
import numpy as np
import pytest

from alignment.ncc import FeatureImage, find_matches
from inference.backends.by_engine import predictor as by_engine
from inference.backends.by_openvino import predictor as by_openvino
from inference.errors import BackendError, ModelError, ShapeError
from inference.model_file import write_model
from inference.nccnet import halo_px
from inference.tiling import predict_tiled
from inference.transform import LIMIT, STEP, NetworkTransform, load_transform, standardised
from tests.inference.networks import drawn, grey

WIDTHS = (3, 4, 5)


@cache
def _keras():
    pytest.importorskip("tensorflow", reason="the extra `train` is not installed")
    from inference.backends import by_keras

    network = drawn(WIDTHS)
    return network, by_keras.predictor(network)


def _section(size=(150, 131), seed=0):
    """A section of noise with a hole and an empty rim."""
    valid = np.ones(size, bool)
    valid[40:60, 30:70] = False
    valid[:, -9:] = False
    return grey(size, seed).astype(np.uint8), valid


@pytest.mark.parametrize("tile_px", [16, 45, 128])
def test_tiles_equal_the_network_on_the_whole_section(tile_px):
    network, predict = _keras()
    image = grey((90, 131))
    halo = halo_px(network.config)
    assert halo.after < 64
    mirrored = np.pad(image, ((64, 64 + 2), (64, 64 + 1)), mode="reflect")
    whole = predict(mirrored)[64:-66, 64:-65]
    found = predict_tiled(predict, image, halo=halo, step_px=4, tile_px=tile_px)
    np.testing.assert_allclose(found, whole, rtol=0, atol=1e-5)
    assert whole.std() > 0.01
    # The margin is no larger than needed: with less of it, tiles show.
    if tile_px < 90:
        short = predict_tiled(predict, image, halo=type(halo)(4, 4), step_px=4, tile_px=tile_px)
        assert abs(short - whole).max() > 1e-3


def test_a_section_becomes_features():
    network, predict = _keras()
    image, valid = _section()
    features = NetworkTransform(network, predict)(image, valid)
    assert features.shape == image.shape
    assert features.dtype == np.float32
    assert (features[~valid] == 0).all()
    assert features[valid].mean() == pytest.approx(0, abs=0.01)
    assert features[valid].std() == pytest.approx(1, abs=0.02)
    np.testing.assert_array_equal(features.astype(np.float16).astype(np.float32), features)
    hidden = np.where(valid, image, 255 - image)
    np.testing.assert_array_equal(NetworkTransform(network, predict)(hidden, valid), features)
    tiled = NetworkTransform(network, predict, tile_px=48)(image, valid)
    assert abs(tiled - features).max() <= STEP  # rounded to steps after rounding by float32


def test_a_section_that_shows_nothing_has_no_features():
    network, predict = _keras()
    image, valid = _section()
    transform = NetworkTransform(network, predict)
    assert not transform(image, np.zeros_like(valid)).any()
    assert not standardised(np.full((4, 4), 0.3, np.float32), np.ones((4, 4), bool)).any()
    with pytest.raises(ShapeError, match="same shape"):
        transform(image, valid[1:])
    with pytest.raises(ShapeError, match="same shape"):
        standardised(np.zeros((4, 4), np.float32), np.ones((4, 5), bool))


def test_extremes_are_cut_off_where_float16_ends():
    output = np.zeros((1, 10_000), np.float32)
    output[0, 0], output[0, 1] = 1, -1
    features = standardised(output, np.ones(output.shape, bool))
    assert features.max() == -features.min() == LIMIT == np.float16(LIMIT)


def test_several_channels_are_not_one_image():
    with pytest.raises(ModelError, match="channels: 1"):
        NetworkTransform(drawn((2,), 2), _keras()[1])


def test_a_file_becomes_a_transform(tmp_path):
    network, predict = _keras()
    path = tmp_path / "net.safetensors"
    sha256 = write_model(path, network)
    image, valid = _section((40, 50))
    transform = load_transform(path, sha256=sha256, backend="keras")
    expected = NetworkTransform(network, predict)(image, valid)
    np.testing.assert_array_equal(transform(image, valid), expected)
    assert load_transform(path, sha256=sha256, backend="keras") is transform
    with pytest.raises(ModelError, match="digest"):
        load_transform(path, sha256="0" * 64)


def test_openvino_is_asked_for_by_name_where_it_is_missing(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "openvino", None)
    path = tmp_path / "net"
    write_model(path, drawn((2,)))
    with pytest.raises(BackendError, match="pip install openvino"):
        load_transform(path, backend="openvino")


@pytest.mark.parametrize("widths", [(3,), (3, 4, 5)])
def test_openvino_computes_what_keras_does(widths):
    pytest.importorskip("openvino", reason="OpenVINO is not installed")
    pytest.importorskip("tensorflow", reason="the extra `train` is not installed")
    from inference.backends import by_keras

    network = drawn(widths, 2, grey_zero=100.0, grey_unit=60.0)
    ours, theirs = by_openvino(network, threads=1), by_keras.predictor(network)
    for size in ((16, 24), (40, 12)):
        image = grey(size)
        np.testing.assert_allclose(ours(image), theirs(image), rtol=0, atol=1e-5)
    with pytest.raises(ShapeError, match="multiples of 4") if len(widths) > 1 else nullcontext():
        ours(grey((15, 16)))


@pytest.mark.parametrize("widths", [(3,), (3, 4, 5)])
def test_the_engine_computes_what_keras_does(widths):
    pytest.importorskip("tensorflow", reason="the extra `train` is not installed")
    from inference.backends import by_keras

    network = drawn(widths, 2, grey_zero=100.0, grey_unit=60.0)
    ours, theirs = by_engine(network), by_keras.predictor(network)
    for size in ((16, 24), (40, 12), (100, 132)):
        image = grey(size)
        np.testing.assert_allclose(ours(image), theirs(image), rtol=0, atol=1e-5)
    with pytest.raises(ShapeError, match="multiples of 4") if len(widths) > 1 else nullcontext():
        ours(grey((15, 16)))


def test_a_file_becomes_a_transform_of_the_engine(tmp_path):
    path = tmp_path / "net.safetensors"
    network = drawn(WIDTHS)
    write_model(path, network)
    image, valid = _section((60, 50))
    found = load_transform(path)(image, valid)
    assert found[valid].std() == pytest.approx(1, abs=0.02)
    by_keras = NetworkTransform(network, _keras()[1])(image, valid)
    assert abs(found - by_keras).max() <= STEP


@pytest.mark.parametrize("shift", [(8, -4), (3, 5)])
def test_sections_are_found_by_their_features(shift):
    """Through the matching of the pipeline; a shift within a coarse pixel changes the features."""
    network, predict = _keras()
    tissue = cv2.GaussianBlur(grey((240, 240)), None, 2)
    tissue = cv2.normalize(tissue, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    fixed = tissue[20:-20, 20:-20]
    moving = tissue[20 + shift[0] : 220 + shift[0], 20 + shift[1] : 220 + shift[1]]
    valid = np.ones(fixed.shape, bool)
    transform = NetworkTransform(network, predict)
    images = [FeatureImage.of(transform(image, valid), valid) for image in (fixed, moving)]
    jobs = np.array([(0, y - 16, x - 16, 1, y, x) for y in (40, 90) for x in (40, 90)], np.int32)
    found, _ = find_matches(images, jobs, template_px=64, search_radius_px=16, min_overlap=0.5)
    offsets = found.offset - 16
    exact = all(n % network.config.step_px == 0 for n in shift)
    for axis in (0, 1):
        np.testing.assert_allclose(offsets[axis], shift[axis], atol=0.02 if exact else 0.5)
    assert found.score.min() > (0.99 if exact else 0.5)
