"""What the engine does not compute, by OpenVINO: said in one line, or refused by name."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from inference import native
from inference.engine import Engine, compile
from inference.errors import BackendError, ConfigError, ShapeError, UnsupportedError
from tests.inference.engine.samples import sample

SHAPE = (8, 9, 3)
needs_openvino = pytest.mark.usefixtures("openvino")


@pytest.fixture
def openvino():
    return pytest.importorskip("openvino", reason="OpenVINO is not installed")


@pytest.fixture
def levelled():
    pytest.importorskip("tensorflow", reason="the extra `train` is not installed")
    import keras

    given = keras.Input((8, 9, 3))
    x = keras.layers.LayerNormalization(name="levelled")(keras.layers.Conv2D(4, 3)(given))
    return keras.Model(given, [x, keras.layers.ReLU()(x)])


@needs_openvino
@pytest.mark.filterwarnings("ignore:This process.*fork:DeprecationWarning")  # by OpenVINO
def test_a_model_of_keras_is_left_to_openvino_in_a_line(levelled, tmp_path):
    from tests.networks import saved

    x = np.concatenate([sample(SHAPE), sample(SHAPE, 1)])
    expected = levelled(x, training=False)
    (tmp_path / "model.keras").write_bytes(saved(levelled))
    for model in (levelled, tmp_path / "model.keras"):
        with pytest.warns(
            UserWarning, match="by OpenVINO: the engine does not know the layer 'lev"
        ):
            network = compile(model, SHAPE, fallback="openvino", threads=1)
        for found, one in zip(network(x), expected, strict=True):
            np.testing.assert_allclose(found, np.asarray(one), rtol=0, atol=1e-5)
    assert "'levelled'" in network.plan()
    with pytest.raises(ShapeError, match="compiled for inputs of"):
        network(x[:, :7])


@needs_openvino
@pytest.mark.parametrize("is_last", [False, True])
def test_an_onnx_file_keeps_its_meaning(tmp_path, is_last):
    files = pytest.importorskip("tests.inference.engine.onnx_files", reason="needs onnx")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    weights = {"w": files.drawn(5, 3, 3, 3), "s": files.drawn(5), "b": files.drawn(5)}
    inner = [
        files.node("Conv", "a w", "h"),
        files.node("InstanceNormalization", "h s b", "i"),
    ]
    moves = ([0, 3, 1, 2], [0, 2, 3, 1]) if is_last else ([0, 1, 2, 3], [0, 1, 2, 3])
    nodes = [
        files.node("Transpose", "x", "a", perm=moves[0]),
        *inner,
        files.node("Transpose", "i", perm=moves[1]),
    ]
    x = sample(SHAPE) if is_last else np.moveaxis(sample(SHAPE), -1, 1)
    data = files.model(nodes, (None, *x.shape[1:]), weights=weights)
    (expected,) = runtime.InferenceSession(data).run(None, {"x": x})
    (tmp_path / "net.onnx").write_bytes(data)
    with pytest.warns(UserWarning, match="InstanceNormalization to i"):
        network = compile(tmp_path / "net.onnx", SHAPE, fallback="openvino")
    found = network(sample(SHAPE))
    expected = expected if is_last else np.moveaxis(expected, 1, -1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_without_openvino_the_layer_and_the_package_are_named(levelled, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(BackendError, match=r"layer 'levelled' .* pip install openvino"):
        compile(levelled, SHAPE, fallback="openvino")
    with pytest.raises(UnsupportedError, match="levelled"):
        compile(levelled, SHAPE)
    with pytest.raises(ConfigError, match="fallback='torch'"):
        compile(levelled, SHAPE, fallback="torch")


@pytest.mark.skipif(native.widest() is None, reason="the kernels are not built")
def test_what_the_engine_computes_stays_with_it():
    pytest.importorskip("tensorflow", reason="the extra `train` is not installed")
    import keras

    given = keras.Input(SHAPE)
    model = keras.Model(given, keras.layers.Conv2D(2, 3)(given))
    assert isinstance(compile(model, SHAPE, fallback="openvino", tuning=False), Engine)
