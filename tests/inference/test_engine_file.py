"""Keras models by the engine, as networks over patches."""

from __future__ import annotations

import numpy as np
import pytest

from inference import native
from inference.backends.files import load_network, on_engine
from inference.errors import ModelError
from tests.networks import model_file, saved

keras = pytest.importorskip("keras", reason="the extra `train` is not installed")
pytest.importorskip("tensorflow", reason="the extra `train` is not installed")
pytestmark = pytest.mark.skipif(native.widest() is None, reason="the kernels are not built")


@pytest.fixture(scope="module")
def file():
    return model_file(padding="valid")


@pytest.fixture(scope="module")
def read(file):
    return load_network(file)


def patches(*shape):
    return np.random.default_rng(0).random((*shape, 1), np.float32)


def test_both_say_and_give_the_same(read, file):
    network = on_engine(file)
    assert (network.digest, network.patch, network.channels) == (read.digest, None, 2)
    for shape in ((12, 20, 22), (14, 16, 18)):  # compiled again for the second
        assert network.shrink(shape) == read.shrink(shape) == (3, 3, 3)
        given = patches(2, *shape)
        np.testing.assert_allclose(network(given), read(given), rtol=0, atol=1e-5)


def test_neither_threads_nor_the_batch_change_a_bit(file):
    given = patches(3, 12, 20, 22)
    found = on_engine(file)(given)
    np.testing.assert_array_equal(on_engine(file, threads=2)(given), found)
    np.testing.assert_array_equal(on_engine(file)(given[1:2])[0], found[1])


def test_a_batch_takes_the_memory_of_a_patch_in_the_engine_alone(read, file):
    size, network = (12, 20, 22), on_engine(file)
    engine = network.compiled(size)
    expected = engine.working_bytes + engine.program.weights_bytes
    assert network.working_bytes(size) == network.working_bytes(size, 4) == expected
    assert read.working_bytes(size, 4) == 4 * read.working_bytes(size)


def test_too_small_patches_are_a_matter_of_the_model(file):
    with pytest.raises(ModelError, match=r"patches of \(4, 16, 16\)"):
        on_engine(file).compiled((4, 16, 16))


@pytest.mark.parametrize("size", [(None, None), (16, 20)])
def test_a_network_of_images_sees_each_section_by_itself(size):
    image = keras.Input((*size, 1))
    x = keras.layers.Conv2D(4, 3, activation="relu")(image)
    model = keras.Model(image, keras.layers.Conv2D(2, 3)(x))
    file = saved(model)
    flat, by_engine = load_network(file), on_engine(file)
    assert flat.patch == (None if size[0] is None else (1, 16, 20))
    given = patches(2, 3, 16, 20)
    expected = np.stack([np.asarray(model(volume, training=False)) for volume in given])
    assert by_engine.patch == flat.patch
    for network in (flat, by_engine):
        assert network.shrink((3, 16, 20)) == (0, 2, 2)
        np.testing.assert_allclose(network(given), expected, rtol=0, atol=1e-5)
    one, three = (4 * z * 16 * 20 * 4 for z in (1, 3))
    assert flat.working_bytes((3, 16, 20)) - flat.working_bytes((1, 16, 20)) > three - one
