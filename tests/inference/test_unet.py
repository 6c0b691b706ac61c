"""The U-Nets: sizes as published, tiles without seams, and engines that run them."""

from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("tensorflow") is None:
    pytest.skip("TensorFlow is not installed", allow_module_level=True)

from inference import native, rsunet, unet
from inference.backends.engine_file import EngineNetwork
from inference.backends.keras_file import KerasNetwork
from inference.keras_on_tensorflow import keras
from inference.tiling import mirrored
from inference.training.config import TF_UNET, RSUNetConfig, TrainConfig, UNetConfig
from tests.networks import saved

SMALL = UNetConfig(layers=3, features_root=4, dropout=0.0)


def test_the_published_network_has_23_convolutions_and_makes_388_of_572():
    model = unet.build(UNetConfig(padding="valid"))
    convolutions = [layer for layer in model.layers if "Conv2D" in type(layer).__name__]
    assert len(convolutions) == 23
    assert model.compute_output_shape((1, 572, 572, 1)) == (1, 388, 388, 2)
    assert UNetConfig().fits((1, 572, 572))
    assert not UNetConfig().fits((1, 570, 572))
    # 31.0 million weights, as Ronneberger's network with one channel in and two classes.
    assert model.count_params() == 31_030_658


def test_the_network_of_the_study_takes_40_px_off_and_drops_half_of_all():
    model = unet.build(TF_UNET)
    assert model.compute_output_shape((1, 210 + 2, 290 + 2, 1)) == (1, 172, 252, 2)
    drops = [layer.rate for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    assert drops == [0.5] * 10


@pytest.mark.parametrize("layers", [1, 2, 3, 4])
def test_sizes_are_what_the_configuration_says(layers):
    config = SMALL.model_copy(update={"layers": layers})
    side = next(n for n in range(120, 200) if config.fits((1, n, n)))
    made = unet.build(config).compute_output_shape((1, side, side, 1))
    assert made[1] == side - 2 * config.shrink_px[1]


def test_weights_are_those_of_the_seed():
    first, again, other = (unet.build(SMALL, seed=seed).get_weights() for seed in (3, 3, 4))
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.ndim == 1 or (a != c).any()


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_tiles_leave_no_seam_and_the_rim_is_mirrored(padding):
    config = SMALL.model_copy(update={"padding": padding})
    model = unet.build(config, seed=1)
    image = np.random.default_rng(0).random((50, 70)).astype(np.float32)
    whole = unet.segment(model, image, config, tile_px=256)
    np.testing.assert_allclose(unet.segment(model, image, config, tile_px=16), whole, atol=1e-6)
    assert whole.shape == (50, 70, 2)
    np.testing.assert_allclose(whole.sum(-1), 1, atol=1e-5)
    if padding == "valid":
        q = config.shrink_px[1]
        rows, columns = mirrored(-q, 52 + q, 50), mirrored(-q, 72 + q, 70)
        seen = image[np.ix_(rows, columns)]
        direct = model(seen[np.newaxis, ..., np.newaxis])[0, :50, :70]
        np.testing.assert_allclose(direct, whole, atol=1e-6)


@pytest.mark.parametrize(
    ("model", "patch"),
    [
        (unet.build(SMALL, seed=1), (2, 60, 76)),
        (unet.build(SMALL.model_copy(update={"padding": "same", "head": "sigmoid"})), (1, 32, 48)),
        (rsunet.build(RSUNetConfig(widths=(4, 6, 8)), seed=1), (5, 32, 24)),
    ],
)
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras
def test_the_engine_runs_them_as_keras_does(model, patch):
    if native.widest() is None:
        pytest.skip("the engine's kernels are not built")
    data = saved(model)
    by_keras = KerasNetwork(data)
    patches = np.random.default_rng(0).random((1, *patch, 1)).astype(np.float32)
    np.testing.assert_allclose(EngineNetwork(data)(patches), by_keras(patches), atol=1e-4)


def test_a_patch_that_is_not_halved_evenly_is_refused_with_the_nearest_that_is():
    with pytest.raises(ValueError, match=r"the nearest that is: \(1, 128, 136\)"):
        TrainConfig(patch_px=(1, 128, 131))


def test_a_sigmoid_tells_two_classes():
    with pytest.raises(ValueError, match="head=sigmoid tells 2 classes, not 3"):
        UNetConfig(classes=3, head="sigmoid")
