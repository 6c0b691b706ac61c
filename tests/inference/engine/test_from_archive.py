"""Files of Keras, read where neither Keras nor TensorFlow can be imported."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile

import numpy as np
import pytest

from inference import native
from inference.engine import compile, from_archive, from_keras, sources
from inference.engine.keras_model import describe
from inference.errors import ModelError, UnsupportedError

pytest.importorskip("tensorflow", reason="the extra `train` is not installed")

import keras
from keras import layers

from inference.backends import by_keras
from inference.config import NCCNetConfig
from tests.engine_networks import (
    SMALL_INPUTS,
    SMALL_WIDTHS,
    TWELVE,
    build,
    drawn,
    unet_2d,
)
from tests.inference.engine.fingerprints import fingerprint
from tests.inference.engine.samples import sample
from tests.networks import saved

ALONE = """
import json, sys
from pathlib import Path


class Nowhere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("keras", "tensorflow"):
            raise ImportError(f"{name} is not here")


sys.meta_path.insert(0, Nowhere())
from inference.engine import sources
from tests.inference.engine.fingerprints import fingerprint

found = {}
for name, shape in json.loads(sys.argv[1]).items():
    found[name] = fingerprint(sources.graph_of(sources.read(Path(name)), shape))
assert not {"keras", "tensorflow"} & set(sys.modules)
print(json.dumps(found))
"""


def _nested():
    inner_in = keras.Input((8, 8, 3))
    inner = keras.Model(inner_in, layers.Conv2D(3, 3, padding="same")(inner_in))
    row = keras.Sequential(
        [keras.Input((8, 8, 3)), layers.Conv2D(3, 3, padding="same"), layers.BatchNormalization()]
    )
    shared = layers.Conv2D(3, 1)
    x = given = keras.Input((8, 8, 3))
    x = row(inner(shared(inner(shared(x)))))
    x = layers.Concatenate()([layers.Add()([x, given, x]), layers.LeakyReLU()(x)])
    return drawn(keras.Model(given, layers.Dropout(0.5)(x)))


def _networks():
    for kind, activation, normalised in TWELVE:
        shape = SMALL_INPUTS[kind]
        model = build(kind, activation, normalised, widths=SMALL_WIDTHS[kind], shape=shape)
        yield f"{kind} {activation} {normalised}", model, shape
    yield "flat", unet_2d((32, 48, 1), (5, 7, 9)), (32, 48, 1)
    yield "nccnet", drawn(by_keras.build(NCCNetConfig(widths=(8, 16)))), (32, 48, 1)
    yield "nested", _nested(), (8, 8, 3)
    row = keras.Sequential([keras.Input((8, 9, 3)), layers.Conv2D(4, 3), layers.MaxPooling2D(2)])
    yield "row", drawn(row), (8, 9, 3)


def test_all_networks_are_read_alike_without_keras(tmp_path):
    expected, shapes = {}, {}
    for name, model, shape in _networks():
        file = tmp_path / f"{name}.keras"
        file.write_bytes(saved(model))
        shapes[str(file)] = shape
        expected[str(file)] = fingerprint(from_keras.read(model, shape))
        assert sources.read(file).channels == (model.outputs[0].shape[-1],)
    done = subprocess.run(
        [sys.executable, "-c", ALONE, json.dumps(shapes)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == expected
    assert len(set(expected.values())) == len(expected) == 16


@pytest.mark.skipif(native.widest() is None, reason="the kernels are not built")
def test_a_file_computes_what_keras_does(tmp_path):
    model, shape = _nested(), (8, 8, 3)
    file = tmp_path / "model.keras"
    file.write_bytes(saved(model))
    x = sample(shape)
    np.testing.assert_allclose(
        compile(file, shape, tuning=False)(x), np.asarray(model(x)), rtol=0, atol=1e-5
    )


def _small():
    given = keras.Input((8, 8, 3))
    x = layers.BatchNormalization(name="levels")(layers.Conv2D(4, 3, name="sums")(given))
    return drawn(keras.Model(given, x))


def _rewritten(data, change=lambda config: None, weights=lambda file: None):
    """Return a file with another description, or other weights."""
    import h5py

    with zipfile.ZipFile(io.BytesIO(data)) as old:
        members = {name: old.read(name) for name in old.namelist()}
    config = json.loads(members["config.json"])
    change(config["config"])
    members["config.json"] = json.dumps(config).encode()
    stored = io.BytesIO(members["model.weights.h5"])
    with h5py.File(stored, "r+") as file:
        weights(file)
    members["model.weights.h5"] = stored.getvalue()
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as new:
        for name, member in members.items():
            new.writestr(name, member)
    return target.getvalue()


def _renamed(file):
    file["layers/conv2d/vars"].attrs["name"] = "other"


def _removed(file):
    del file["layers/conv2d/vars/1"]


def _halved(file):
    half = file["layers/batch_normalization/vars/0"][:2]
    del file["layers/batch_normalization/vars/0"]
    file["layers/batch_normalization/vars/0"] = half


def _whole(file):
    del file["layers/conv2d/vars/1"]
    file["layers/conv2d/vars/1"] = np.zeros(4, np.int16)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (_renamed, "are those of the layer 'other', and those of 'sums' were expected"),
        (_removed, r"layer 'sums' \(Conv2D\) has weights of \[\(3, 3, 3, 4\)\]"),
        (_halved, r"layer 'levels' \(BatchNormalization\) has weights of \[\(2,\), \(4,\)"),
        (_whole, "layer 'sums' has weights of the type int16"),
    ],
)
def test_weights_that_are_not_the_layers_are_refused(weights, message):
    file = _rewritten(saved(_small()), weights=weights)
    with pytest.raises(ModelError, match=message):
        sources.graph_of(sources.read(file), (8, 8, 3))


def _circle(config):
    (call,) = config["layers"][1]["inbound_nodes"]
    call["args"][0]["config"]["keras_history"] = ["levels", 0, 0]


def _from_nowhere(config):
    config["output_layers"] = ["sums", 3, 0]


def _without_calls(config):
    del config["layers"][2]["inbound_nodes"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_circle, "waits for its own result"),
        (_from_nowhere, "nothing in the model 'functional.*' makes"),
        (_without_calls, "not as Keras 3 writes it: KeyError 'inbound_nodes'"),
    ],
)
def test_descriptions_that_make_no_network_are_refused(change, message):
    file = _rewritten(saved(_small()), change)
    with pytest.raises(ModelError, match=message):
        sources.graph_of(sources.read(file), (8, 8, 3))


def test_models_inside_models_have_an_end():
    x = given = keras.Input((4, 4, 1))
    for _ in range(15):
        inner_in = keras.Input((4, 4, 1))
        inner = keras.Model(given, x)
        x = given = inner_in
        x = inner(inner(x))
    x = layers.ReLU()(x)
    with pytest.raises(ModelError, match="more than 20000 layers"):
        from_keras.read(keras.Model(given, x), (4, 4, 1))


def test_what_a_layer_is_called_with_counts():
    given = keras.Input((8, 8, 3))
    trained = layers.BatchNormalization(name="trained")(given, training=True)
    with pytest.raises(UnsupportedError, match="'trained': it is called with True"):
        from_keras.read(keras.Model(given, trained), (8, 8, 3))
    with pytest.raises(UnsupportedError, match=r"it is called with 1\.5 beside its inputs"):
        from_keras.read(keras.Model(given, given + 1.5), (8, 8, 3))
    plain = keras.Model(given, layers.BatchNormalization()(given, training=False))
    assert len(from_keras.read(plain, (8, 8, 3)).nodes) == 2
    assert describe(plain).channels == (3,)


def test_an_activation_of_somebodys_own_is_not_taken_for_that_of_keras():
    def relu(x):
        return x * 2

    relu.__module__ = "lab"
    given = keras.Input((8, 8, 3))
    model = keras.Model(given, layers.Conv2D(2, 1, activation=relu)(given))
    with pytest.raises(UnsupportedError, match=r"lab\.relu"):
        from_keras.read(model, (8, 8, 3))
    assert from_archive._snake_case("FittingSides") == "fitting_sides"
