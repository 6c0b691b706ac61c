"""Keras models as networks: what they give, and what is refused before Keras sees it."""

from __future__ import annotations

import io
import json
import zipfile

import numpy as np
import pytest

from inference.backends.files import load_network
from inference.errors import ModelError
from inference.overlap import PatchGrid, predict_block
from tests.networks import model_file, saved

keras = pytest.importorskip("keras", reason="the extra `train` is not installed")
pytest.importorskip("tensorflow", reason="the extra `train` is not installed")


@pytest.fixture(scope="module")
def file():
    return model_file()


@pytest.fixture(scope="module")
def network(file):
    return load_network(file)


def test_a_network_says_what_it_takes_and_gives(network, file):
    again = load_network(file)
    assert again.digest == network.digest != load_network(model_file(seed=1)).digest
    assert (network.patch, network.channels) == (None, 2)
    assert network.shrink((8, 16, 16)) == (0, 0, 0)
    # What a layer of 4 channels sees, what it gives, and that once more.
    assert network.working_bytes((8, 16, 16)) == 4 * 8 * 16 * 16 * (4 + 4 + 4)


def test_networks_of_the_project_and_models_inside_models_are_opened():
    from inference.backends import by_keras
    from inference.config import NCCNetConfig

    inner = by_keras.build(NCCNetConfig(widths=(2, 3)))
    image = keras.Input((None, None, 1))
    network = load_network(saved(keras.Model(image, inner(image))))
    assert network.shrink((2, 8, 12)) == (0, 0, 0)


def test_what_is_needed_later_counts_until_then():
    image = keras.Input((4, 8, 8, 1))
    kept = keras.layers.Conv3D(8, 1)(image)
    x = keras.layers.Conv3D(2, 1)(kept)
    x = keras.layers.Conv3D(8, 1)(x)
    network = load_network(saved(keras.Model(image, keras.layers.Add()([kept, x]))))
    assert network.working_bytes((4, 8, 8)) == 4 * 4 * 8 * 8 * (8 + 8 + 8 + 8)


def test_patches_are_the_network_on_the_whole_array(network):
    image = np.random.default_rng(0).random((8, 30, 26)).astype(np.float32)
    expected = np.moveaxis(network(image[None, ..., None])[0], -1, 0)
    grid = PatchGrid((12, 16, 16), (3, 3, 3))
    low, high = grid.needed((0, 0, 0), image.shape)
    pads = [(-a, b - n) for a, b, n in zip(low, high, image.shape, strict=True)]
    found = predict_block(
        network, np.pad(image, pads), grid, (0, 0, 0), image.shape,
        channels=2, scale=np.float32, batch=2,
    )  # fmt: skip
    inside = (slice(None), *(slice(3, -3),) * 3)  # at the border Keras pads every layer anew
    np.testing.assert_allclose(found[inside], expected[inside], atol=1e-6)


def test_a_network_without_padding_gives_smaller_patches():
    network = load_network(model_file(padding="valid", size=(12, 16, 16)))
    assert network.patch == (12, 16, 16)
    assert network.shrink((12, 16, 16)) == (3, 3, 3)
    with pytest.raises(ModelError, match=r"takes patches of \(12, 16, 16\)"):
        network.shrink((12, 16, 18))


def _model(*layers, size=(4, 8, 8), channel=1):
    image = x = keras.Input((*size, channel))
    for layer in layers:
        x = layer(x)
    return saved(keras.Model(image, x))


def _rewritten(file, **members):
    """Return the file with members in the place of its own."""
    with zipfile.ZipFile(io.BytesIO(file)) as old:
        found = {name: old.read(name) for name in old.namelist()} | members
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as new:
        for name, data in found.items():
            new.writestr(name, data)
    return target.getvalue()


def _described(file, change):
    """Return the file with a changed description."""
    with zipfile.ZipFile(io.BytesIO(file)) as old:
        description = json.loads(old.read("config.json"))
    change(description)
    return _rewritten(file, **{"config.json": json.dumps(description).encode()})


def _layer(file, **changes):
    return _described(file, lambda d: d["config"]["layers"][1].update(changes))


@pytest.mark.filterwarnings("ignore:.*lambda:UserWarning")
def test_a_model_with_code_is_refused_by_name(tmp_path):
    mark = tmp_path / "ran"

    def evil():
        return lambda x, mark=str(mark): (__import__("pathlib").Path(mark).touch(), x)[1]

    layer = _model(keras.layers.Lambda(evil(), name="innocent"))
    activation = _model(keras.layers.Conv3D(1, 1, activation=evil()))
    mark.unlink()  # it ran when the models were made
    with pytest.raises(ModelError, match=r"layer 'innocent' is a 'keras\.layers\.Lambda'"):
        load_network(layer)
    with pytest.raises(ModelError, match=r"layer 'conv3d.*' has the activation"):
        load_network(activation)
    assert not mark.exists()


def test_a_class_of_somebodys_own_is_refused_by_name():
    @keras.saving.register_keras_serializable("lab", "Own")
    class Own(keras.layers.Layer):
        def call(self, x):
            return x

    with pytest.raises(ModelError, match="lab>Own"):
        load_network(_model(Own()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"module": "os", "class_name": "system"}, r"os\.system"),
        ({"module": "keras.utils", "class_name": "get_file"}, r"keras\.utils\.get_file"),
        ({"module": "builtins", "class_name": "eval"}, r"builtins\.eval"),
        ({"module": "kerasevil.layers"}, r"kerasevil\.layers\.Conv3D"),
        ({"class_name": "StringLookup"}, "StringLookup"),
        ({"class_name": "TFSMLayer"}, "TFSMLayer"),
        ({"class_name": "__lambda__", "module": None}, "__lambda__"),
        ({"config": {"activation": "evil"}}, "activation 'evil'"),
        ({"config": {"activation": ["4wEA", None, None]}}, "activation"),
        (
            {"config": {"activation": {"class_name": "function", "module": "os"}}},
            r"os\.function",
        ),
    ],
)
def test_a_description_that_names_anything_else_is_refused(file, changes, message):
    with pytest.raises(ModelError, match=message):
        load_network(_layer(file, **changes))


def test_a_model_of_another_class_is_refused(file):
    with pytest.raises(ModelError, match="classes of your own"):
        load_network(_described(file, lambda d: d.update(class_name="Own", module="lab")))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\x04\x95pickle", "begins with"),
        (b"\x89HDF\r\n\x1a\n", "begins with"),
        (b"PK\x03\x04 and nothing else", "no Keras archive"),
    ],
)
def test_what_is_no_keras_file_is_refused(data, message):
    with pytest.raises(ModelError, match=message):
        load_network(data)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"assets/vocabulary.txt": b"/etc/passwd"}, "holds 'assets/vocabulary.txt'"),
        ({"../../evil.py": b"import os"}, r"holds '\.\./\.\./evil\.py'"),
        ({"config.json": b" " * (16 * 2**20 + 1)}, "at most 16777216"),
        ({"config.json": b"[" * 100_000}, "cannot be read"),
        ({"config.json": b"\xff\xfe{}"}, "cannot be read"),
        ({"config.json": b"[]"}, "classes of your own"),
        ({"model.weights.h5": b"none"}, "no HDF5"),
    ],
)
def test_members_that_are_not_what_they_should_be_are_refused(file, members, message):
    with pytest.raises(ModelError, match=message):
        load_network(_rewritten(file, **members))


@pytest.mark.parametrize("kind", ["external link", "soft link", "external data", "virtual"])
def test_weights_that_lie_in_another_file_are_refused(file, kind, tmp_path):
    import h5py

    target = io.BytesIO()
    with h5py.File(target, "w") as weights:
        group = weights.create_group("layers/conv3d")
        if kind == "external link":
            group["vars"] = h5py.ExternalLink("/etc/secret.h5", "/x")
        elif kind == "soft link":
            group["vars"] = h5py.SoftLink("/elsewhere")
        elif kind == "external data":
            group.create_dataset("0", (4,), "u1", external=[("/etc/passwd", 0, 4)])
        else:
            layout = h5py.VirtualLayout((4,), "u1")
            layout[:] = h5py.VirtualSource("/etc/secret.h5", "x", (4,))
            group.create_virtual_dataset("0", layout)
    message = "point elsewhere" if "link" in kind else "lie in another file"
    with pytest.raises(ModelError, match=message):
        load_network(_rewritten(file, **{"model.weights.h5": target.getvalue()}))


def test_a_model_that_maps_no_volume_is_refused():
    layers = keras.layers
    with pytest.raises(ModelError, match="takes 3 channels"):
        load_network(_model(layers.Conv3D(1, 1), channel=3))
    halved = load_network(_model(layers.Conv3D(1, 1), layers.UpSampling3D()))
    with pytest.raises(ModelError, match="expected as many voxels"):
        halved.shrink((4, 8, 8))
    with pytest.raises(ModelError, match="all of them or none"):
        load_network(_model(layers.Conv3D(1, 1), size=(None, 8, 8)))
