"""What is read from ONNX, computed plainly and by the kernels, against ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inference import native
from inference.engine import compile, from_onnx, onnx_model, reference, sources
from inference.errors import ModelError, ShapeError, UnsupportedError

pytest.importorskip("onnx", reason="onnx is not installed")

import onnx
from onnx import helper, numpy_helper

from tests.inference.engine.onnx_files import drawn, floats, model, node, whole

FLAT, SOLID = (1, 3, 9, 12), (1, 3, 5, 8, 7)
LAST = (1, 9, 12, 3)  # of an exporter that has channels last


def _conv(outputs, *sides, **attributes):
    kernel = drawn(outputs, 3, *sides)
    return [node("Conv", "x w b", **attributes)], {"w": kernel, "b": drawn(outputs)}


def _transposed(outputs, *sides, **attributes):
    kernel = drawn(3, outputs, *sides)
    return [node("ConvTranspose", "x w b", **attributes)], {"w": kernel, "b": drawn(outputs)}


def _plain(kind, **attributes):
    return [node(kind, **attributes)], {}


def _with(kind, inputs, **weights):
    return [node(kind, inputs)], weights


def _resize(*scales, **attributes):
    return [node("Resize", "x  s".replace("  ", " roi "), **attributes)], {
        "roi": floats(),
        "s": floats(*scales),
    }


def _normal():
    weights = {n: drawn(3, seed=k) for k, n in enumerate("smb")}
    return (
        [node("BatchNormalization", "x s b m v", epsilon=1e-3)],
        weights | {"v": floats(0.5, 1, 2)},
    )


HALF = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
ODD = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
BY_CHANNEL = floats(0.5, -2, 3).reshape(3, 1, 1)

ONE = {
    "conv": _conv(5, 3, 3),
    "conv padded unevenly": _conv(5, 3, 3, pads=[1, 0, 2, 1]),
    "conv strided, same upper": _conv(5, 3, 3, strides=[2, 2], auto_pad="SAME_UPPER"),
    "conv strided, same lower": _conv(5, 4, 3, strides=[2, 3], auto_pad="SAME_LOWER"),
    "conv valid": _conv(5, 3, 3, auto_pad="VALID"),
    "conv without bias": ([node("Conv", "x w", kernel_shape=[1, 1])], {"w": drawn(4, 3, 1, 1)}),
    "transposed": _transposed(5, 2, 2, strides=[2, 2]),
    "transposed, cropped": _transposed(5, 4, 4, strides=[2, 2], pads=[1, 1, 1, 1]),
    "transposed, uneven": _transposed(5, 3, 4, strides=[2, 3], pads=[1, 0, 0, 2]),
    "transposed, with more": _transposed(
        5, 3, 3, strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]
    ),
    "transposed, with zeros": _transposed(5, 3, 3, strides=[3, 3], output_padding=[2, 1]),
    "normalised": _normal(),
    "relu": _plain("Relu"),
    "leaky": _plain("LeakyRelu", alpha=0.2),
    "leaky, usual": _plain("LeakyRelu"),
    "elu": _plain("Elu", alpha=0.7),
    "tanh": _plain("Tanh"),
    "sigmoid": _plain("Sigmoid"),
    "softmax": _plain("Softmax", axis=1),
    "identity": _plain("Identity"),
    "dropout": _plain("Dropout"),
    "sum": _with("Add", "x x"),
    "plus a number": _with("Add", "x n", n=floats(0.5).reshape(())),
    "plus channels": _with("Add", "n x", n=BY_CHANNEL),
    "minus channels": _with("Sub", "x n", n=BY_CHANNEL[np.newaxis]),
    "from channels": _with("Sub", "n x", n=BY_CHANNEL),
    "times channels": _with("Mul", "x n", n=BY_CHANNEL),
    "over channels": _with("Div", "x n", n=BY_CHANNEL),
    "joined": ([node("Relu", output="p"), node("Concat", "x p x", axis=1)], {}),
    "joined from behind": ([node("Concat", "x x", axis=-3)], {}),
    "summed": ([node("Sum", "x x x")], {}),
    "max pool": _plain("MaxPool", kernel_shape=[2, 2], strides=[2, 2]),
    "max pool padded": _plain("MaxPool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    "max pool, ceiling of nothing": _plain(
        "MaxPool", kernel_shape=[3, 2], strides=[3, 2], ceil_mode=1
    ),
    "average pool": _plain("AveragePool", kernel_shape=[2, 3]),
    "average pool padded": _plain("AveragePool", kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
    "average pool, zeros counted": _plain(
        "AveragePool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1
    ),
    "nearest": _resize(1, 1, 2, 3, **ODD),
    "nearest of centres": _resize(1, 1, 2, 3),
    "nearest of corners, twice": _resize(
        1, 1, 2, 2, coordinate_transformation_mode="asymmetric"
    ),
    "linear": _resize(1, 1, 2, 3, **HALF),
    "linear of PyTorch": _resize(
        1, 1, 2, 2, mode="linear", coordinate_transformation_mode="pytorch_half_pixel"
    ),
    "resized not at all": _resize(
        1, 1, 1, 1, mode="linear", coordinate_transformation_mode="align_corners"
    ),
    "resized to sizes": (
        [node("Resize", "x roi e z".replace("roi e", "e e"), **ODD)],
        {"e": floats(), "z": whole(1, 3, 18, 12)},
    ),
    "padded": _with("Pad", "x p", p=whole(0, 0, 1, 2, 0, 0, 3, 0)),
    "padded and cut": _with("Pad", "x p", p=whole(0, 0, 1, -2, 0, 0, -3, 1)),
    "cut": (
        [node("Slice", "x s e a")],
        {"s": whole(2, -5), "e": whole(2**31 - 1, -1), "a": whole(2, 3)},
    ),
    "moved and back": (
        [node("Transpose", output="p", perm=[0, 3, 2, 1]), node("Relu", "p", "q"),
         node("Softmax", "q", "r", axis=-1), node("Transpose", "r", perm=[0, 3, 2, 1])],
        {},
    ),
    "a constant of its own": (
        [node("Constant", "", "n", value=numpy_helper.from_array(BY_CHANNEL)),
         node("Mul", "x n")],
        {},
    ),
    "a folded constant": (
        [node("Unsqueeze", "n a", "m"), node("Mul", "m m", "k"), node("Mul", "x k")],
        {"n": floats(0.5, -2, 3).reshape(3, 1), "a": whole(2)},
    ),
    "sizes of another": (
        [node("Shape", output="s"), node("Gather", "s g", "h"), node("Mul", "h t", "u"),
         node("Concat", "nc u", "z", axis=0), node("Resize", "x e e z", **ODD)],
        {"g": whole(2, 3), "t": whole(2, 2), "nc": whole(1, 3), "e": floats()},
    ),
}  # fmt: skip
DEEP = {
    "conv": _conv(5, 3, 3, 3, pads=[1, 1, 1, 1, 1, 1]),
    "conv in plane": _conv(5, 1, 3, 3, pads=[0, 1, 1, 0, 1, 1], strides=[1, 2, 2]),
    "transposed": _transposed(5, 1, 2, 2, strides=[1, 2, 2]),
    "normalised": _normal(),
    "max pool": _plain("MaxPool", kernel_shape=[1, 2, 2], strides=[1, 2, 2]),
    "nearest": _resize(1, 1, 1, 2, 2, **ODD),
    "linear": _resize(1, 1, 2, 2, 3, **HALF),
    "padded": _with("Pad", "x p", p=whole(0, 0, 1, 2, 0, 0, 0, 3, 0, 1)),
    "softmax": _plain("Softmax", axis=1),
    "cut": ([node("Slice", "x s e a")], {"s": whole(1), "e": whole(4), "a": whole(-3)}),
}
TO_FIRST, TO_LAST = [0, 3, 1, 2], [0, 2, 3, 1]
ONCE_LAST = {
    "a convolution between transpositions": (
        [node("Transpose", output="p", perm=TO_FIRST), node("Conv", "p w", "q"),
         node("Transpose", "q", perm=TO_LAST)],
        {"w": drawn(4, 3, 3, 3)},
    ),
    "channels last behind them": (
        [node("Transpose", output="p", perm=TO_FIRST), node("Relu", "p", "q"),
         node("Transpose", "q", "r", perm=TO_LAST), node("Mul", "r n", "s"),
         node("Concat", "s s", axis=-1)],
        {"n": floats(0.5, -2, 3)},
    ),
}  # fmt: skip
BEFORE = {
    "padded": (9, [node("Pad", pads=[0, 0, 1, 2, 0, 0, 3, 0])], {}),
    "cut": (9, [node("Slice", starts=[2, 1], ends=[100, -1], axes=[2, 3])], {}),
    "enlarged": (9, [node("Upsample", "x s")], {"s": floats(1, 1, 2, 3)}),
    "resized": (10, [node("Resize", "x s")], {"s": floats(1, 1, 2, 2)}),
    "squeezed": (
        12,
        [node("Unsqueeze", "n", "m", axes=[1, 2]), node("Mul", "x m")],
        {"n": floats(0.5, -2, 3)},
    ),
    "softmax of what is last": (
        11,
        [node("Transpose", output="p", perm=TO_LAST), node("Softmax", "p", "q", axis=3),
         node("Transpose", "q", perm=TO_FIRST)],
        {},
    ),
}  # fmt: skip


def _expected(data, x):
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    session = runtime.InferenceSession(data, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})


def _sample(shape):
    return np.random.default_rng(1).uniform(-1, 1, shape).astype(np.float32)


def _first_to_last(values):
    return np.moveaxis(values, 1, -1)


def _check(data, shape, to_last=_first_to_last, tolerance=2e-5):
    x = _sample(shape)
    (expected,) = (to_last(values) for values in _expected(data, x))
    given = to_last(x)
    graph = sources.graph_of(sources.read(data), given.shape[1:])
    (found,) = reference.run(graph, given.reshape(-1, *given.shape[-3:]))
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=0, atol=tolerance)
    if native.widest():
        found = compile(graph, tuning=False)(given)
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", ONE)
def test_operators_of_images(name):
    nodes, weights = ONE[name]
    _check(model(nodes, FLAT, weights=weights), FLAT)


@pytest.mark.parametrize("name", DEEP)
def test_operators_of_volumes(name):
    nodes, weights = DEEP[name]
    _check(model(nodes, SOLID, weights=weights), SOLID)


@pytest.mark.parametrize("name", ONCE_LAST)
def test_transpositions_at_the_border_leave_channels_last(name):
    nodes, weights = ONCE_LAST[name]
    data = model(nodes, LAST, weights=weights)
    assert sources.read(data).input_shapes == ((9, 12, 3),)
    _check(data, LAST, to_last=np.asarray)


@pytest.mark.parametrize("name", BEFORE)
def test_operators_as_they_once_were(name):
    opset, nodes, weights = BEFORE[name]
    _check(model(nodes, FLAT, weights=weights, opset=opset), FLAT)


def _converted():
    """Return files of PyTorch's layers, with what PyTorch made of an input; `onnx` ships them."""
    folder = Path(onnx.__file__).parent / "backend/test/data/pytorch-converted"
    for file in sorted(folder.glob("*[23]d*/model.onnx")):
        arrays = [
            numpy_helper.to_array(onnx.load_tensor(file.parent / f"test_data_set_0/{name}.pb"))
            for name in ("input_0", "output_0")
        ]
        if arrays[0].ndim in (4, 5):
            yield file, *(_first_to_last(values) for values in arrays)


def test_layers_as_pytorch_wrote_them():
    refused, computed = [], []
    for file, x, expected in _converted():
        try:
            graph = sources.graph_of(sources.read(file), x.shape[1:])
        except UnsupportedError:
            refused.append(file.parent.name)
            continue
        (found,) = reference.run(graph, x[0].reshape(-1, *x.shape[-3:]))
        np.testing.assert_allclose(found.reshape(expected[0].shape), expected[0], atol=1e-5)
        computed.append(file.parent.name)
    if not refused:
        pytest.skip("this version of onnx ships no files of PyTorch")
    assert len(computed) >= 20
    strange = ("dilat", "group", "depthwise", "PReLU", "Pad2d")
    assert all(any(word in name for word in strange) for name in refused), refused


def network(shape=(None, 1, None, None), inner=6):
    """Return the file of a U-Net of two levels, for images of any size."""
    names = {
        "w0": drawn(inner, 1, 3, 3), "b0": drawn(inner),
        "w1": drawn(2 * inner, inner, 3, 3), "w2": drawn(2 * inner, inner, 2, 2),
        "w3": drawn(3, 2 * inner, 1, 1), "s": floats(*[1] * 2 * inner),
        "v": floats(*[0.5] * 2 * inner), "z": drawn(2 * inner),
    }  # fmt: skip
    same = {"pads": [1, 1, 1, 1]}
    nodes = [
        node("Conv", "x w0 b0", "a", **same), node("Elu", "a", "k"),
        node("MaxPool", "k", "m", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "m w1", "c", **same), node("BatchNormalization", "c s z z v", "d"),
        node("Relu", "d", "e"), node("ConvTranspose", "e w2", "u", strides=[2, 2]),
        node("Concat", "k u", "j", axis=1), node("Conv", "j w3", "l"),
        node("Softmax", "l", "y", axis=1),
    ]  # fmt: skip
    return model(nodes, shape, weights=names, channels=3)


def test_a_network_of_any_size():
    data = network()
    source = sources.read(data)
    assert (source.input_shapes, source.channels) == (((None, None, 1),), (3,))
    _check(data, (1, 1, 16, 22))
    _check(data, (1, 1, 8, 10))


def _body():
    return helper.make_graph([], "body", [], [])


REFUSED = {
    "dilated": (_conv(5, 3, 3, dilations=[2, 2]), r"'the Conv' \(Conv\): it is dilated"),
    "groups": (
        ([node("Conv", "x w", group=3)], {"w": drawn(3, 1, 3, 3)}),
        "'the Conv'.*group is 3",
    ),
    "output shape": (
        _transposed(5, 2, 2, strides=[2, 2], output_shape=[18, 24]),
        "output_shape",
    ),
    "transposed same": (_transposed(5, 2, 2, auto_pad="SAME_UPPER"), "auto_pad is 'SAME_UPPER'"),
    "unknown": (_plain("InstanceNormalization"), "InstanceNormalization"),
    "clipped": (_with("Clip", "x lo hi", lo=floats(0)[0], hi=floats(6)[0]), "Clip"),
    "softmax of x": (_plain("Softmax", axis=3), "'x', not channels"),
    "joined along y": (([node("Concat", "x x", axis=2)], {}), "another axis than channels"),
    "mirrored": (
        ([node("Pad", "x p", mode="reflect")], {"p": whole(0, 0, 1, 1, 0, 0, 1, 1)}),
        "mode is 'reflect'",
    ),
    "padded by ones": (
        _with("Pad", "x p v", p=whole(0, 0, 1, 1, 0, 0, 1, 1), v=floats(1)[0]),
        "other values than 0",
    ),
    "padded channels": (_with("Pad", "x p", p=whole(0, 1, 0, 0, 0, 0, 0, 0)), "the channels"),
    "every other pixel": (
        _with("Slice", "x s e a t", s=whole(0), e=whole(9), a=whole(2), t=whole(2)),
        "its step is 2",
    ),
    "cut batch": (_with("Slice", "x s e a", s=whole(0), e=whole(1), a=whole(0)), "cuts the batch"),
    "halved": (_resize(1, 1, 0.5, 0.5, **ODD), "'y' of 9 by 0.5"),
    "cubic": (_resize(1, 1, 2, 2, mode="cubic"), "enlarges 2 times by cubic"),
    "corners": (
        _resize(1, 1, 2, 2, mode="linear", coordinate_transformation_mode="align_corners"),
        "by linear, align_corners",
    ),
    "linear from the corner": (
        _resize(1, 1, 2, 2, mode="linear", coordinate_transformation_mode="asymmetric"),
        "by linear, asymmetric",
    ),
    "nearest above": (
        _resize(1, 1, 2, 2, nearest_mode="ceil"),
        "by nearest, half_pixel, ceil",
    ),
    "nearest, three times from the corner": (
        _resize(1, 1, 3, 3, coordinate_transformation_mode="asymmetric"),
        "asymmetric, round_prefer_floor",
    ),
    "ceiling": (
        _plain("MaxPool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
        "beyond the border",
    ),
    "product of two": (
        ([node("Relu", output="p"), node("Mul", "x p")], {}),
        "of two results only the sum",
    ),
    "a picture of constants": (
        _with("Add", "x n", n=drawn(3, 9, 12)),
        "more than one value a channel",
    ),
    "one over": (_with("Div", "n x", n=floats(1)), "divides by a result"),
    "weights that are computed": (
        ([node("Conv", "x x")], {}),
        "its input 1 must be constant",
    ),
    "other kernels": (([node("Conv", "x w")], {"w": drawn(4, 2, 3, 3)}), "takes 2 channels"),
    "moved": (
        ([node("Transpose", output="p", perm=[0, 1, 3, 2]), node("Conv", "p w", "q"),
          node("Transpose", "q", perm=[0, 1, 3, 2])], {"w": drawn(4, 3, 3, 3)}),
        "in the order ncxy",
    ),
    "moved and not": (
        ([node("Transpose", output="p", perm=[0, 1, 3, 2]), node("Add", "x p")], {}),
        "in different orders",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_known_is_refused_by_name(name):
    (nodes, weights), message = REFUSED[name]
    if name == "unknown":
        nodes, weights = [node("InstanceNormalization", "x s b")], {"s": drawn(3), "b": drawn(3)}
    data = model(nodes, FLAT if name != "moved and not" else (1, 3, 9, 9), weights=weights)
    with pytest.raises(UnsupportedError, match=message):
        sources.graph_of(sources.read(data), (9, 12 if name != "moved and not" else 9, 3))


def test_the_softmax_that_once_ran_over_all_axes_is_refused():
    data = model([node("Softmax")], FLAT, opset=11)
    with pytest.raises(UnsupportedError, match="over all axes from 1 on"):
        sources.graph_of(sources.read(data), (9, 12, 3))


def test_sums_of_what_does_not_fit_are_refused_by_name():
    nodes = [node("MaxPool", output="p", kernel_shape=[2, 2]), node("Add", "x p")]
    with pytest.raises(ShapeError, match="node 'the Add'"):
        sources.graph_of(sources.read(model(nodes, FLAT)), (9, 12, 3))


def _changed(change):
    made = onnx.load_model_from_string(network())
    change(made)
    return made.SerializeToString()


def _external(made):
    weights = made.graph.initializer[0]
    weights.data_location = onnx.TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="/etc/passwd")
    weights.ClearField("raw_data")


def _of_somebody(made):
    made.graph.node[0].domain = "lab"


def _of_the_future(made):
    made.opset_import[0].version = 99


def _disordered(made):
    first = made.graph.node.pop(0)
    made.graph.node.append(first)


def _cut_short(made):
    made.graph.initializer[0].raw_data = b"1234"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_external, "lie in another file"),
        (_of_somebody, "an operator of 'lab'"),
        (_of_the_future, "operator set 99"),
        (_disordered, "made by no node before it"),
        (_cut_short, "cannot be read"),
    ],
)
def test_files_that_are_more_or_less_than_a_network_are_refused(change, message):
    with pytest.raises(ModelError, match=message):
        sources.graph_of(sources.read(_changed(change)), (16, 16, 1))


@pytest.mark.parametrize("data", [b"\x08\x07 and nothing more", b"\x08\x08"])
def test_what_is_no_onnx_is_refused(data):
    with pytest.raises(ModelError, match="no ONNX"):
        sources.read(data)


def test_an_unread_attribute_is_refused():
    made = onnx.load_model_from_string(network())
    made.graph.node[1].attribute.append(helper.make_attribute("limit", 2.0))
    with pytest.raises(UnsupportedError, match="has the attribute 'limit'"):
        from_onnx.read(onnx_model.parse(made.SerializeToString()), (16, 16, 1))
