"""What computes a network over a volume: the engine, or Keras; chosen once and recorded."""

from __future__ import annotations

import numpy as np
import pytest

from alignment.errors import ConfigError, StageFailed
from alignment.predicting import networks
from alignment.predicting.driver import run_prediction
from alignment.stages import predict
from inference import native
from inference.errors import BackendError
from storage import open_prediction, provenance
from storage.commit import records
from storage.store import join, read_bytes, replace_bytes
from tests.networks import model_file, saved
from tests.predicting.conftest import SETTINGS

pytestmark = pytest.mark.skipif(native.widest() is None, reason="the kernels are not built")


def by(backend, settings=SETTINGS, **more):
    return settings | {"network": {"backend": backend, **more}}


def _check_agree(values_of, prepare_run, settings, model):
    found, prepared = {}, {}
    for backend in ("engine", "keras"):
        prepared[backend] = prepare_run(by(backend, settings), of=model)
        found[backend] = values_of(prepared[backend])
    assert len(found["engine"]) == prepared["engine"].figures.units
    for start, values in found["engine"].items():
        assert np.ptp(values) > 0.01
        np.testing.assert_allclose(values, found["keras"][start], rtol=0, atol=1e-4)
    volume = prepared["keras"].run_uri.rpartition("/runs/")[0]
    first, second = (open_prediction(volume, at=epoch).values.astype(int) for epoch in (1, 2))
    assert abs(first - second).max() <= 1  # rounded to 1/255


def test_engine_and_keras_agree_on_a_volume(values_of, prepare_run, model):
    _check_agree(values_of, prepare_run, SETTINGS, model)


def test_engine_and_keras_agree_on_a_network_of_images(values_of, prepare_run, tmp_path):
    from tests.engine_networks import unet_2d

    flat = join(tmp_path.as_uri(), "flat.keras")
    replace_bytes(flat, saved(unet_2d((None, None, 1), (5, 7, 9))))
    patches = {"patch_px": [4, 40, 40], "margin_px": [0, 4, 4], "join": "blend", "batch": 2}
    _check_agree(values_of, prepare_run, SETTINGS | {"patches": patches}, flat)


@pytest.mark.slow
def test_engine_and_keras_agree_on_a_residual_network(values_of, prepare_run, tmp_path):
    from tests.engine_networks import rsunet

    file = join(tmp_path.as_uri(), "residual.keras")
    replace_bytes(file, saved(rsunet((12, 48, 48, 1), (6, 8, 19))))
    settings = {
        "patches": {"margin_px": [4, 8, 8], "scale": "symmetric"},
        "volume": {"shard": [8, 64, 64], "chunk": [8, 32, 32]},
    }
    _check_agree(values_of, prepare_run, settings, file)


@pytest.fixture(scope="module")
def unknown(tmp_path_factory):
    """A model that Keras opens and the engine does not know."""
    import keras

    image = keras.Input((None, None, None, 1))
    x = keras.layers.Conv3D(4, 3, padding="same")(image)
    x = keras.layers.LayerNormalization(name="levelled")(x)
    file = (tmp_path_factory.mktemp("unknown") / "unknown.keras").as_uri()
    replace_bytes(file, saved(keras.Model(image, keras.layers.Conv3D(1, 1)(x))))
    return file


def test_a_layer_that_the_engine_does_not_know_is_refused_or_left_to_keras(
    prepare_run, unknown, values_of
):
    with pytest.raises(ConfigError, match="layer 'levelled' of the kind LayerNormalization"):
        prepare_run(by("engine"), of=unknown)
    prepared = prepare_run(by("auto"), of=unknown)
    assert prepared.layout.backend == "keras"
    assert "Keras: the engine does not know the layer 'levelled'" in prepared.layout.by
    assert values_of(prepared)


def test_without_keras_the_layer_and_what_is_missing_are_named(prepare_run, unknown, monkeypatch):
    def missing(data):
        raise BackendError("pip install 'petalign[train]'")

    monkeypatch.setattr(networks, "load_network", missing)
    with pytest.raises(ConfigError, match=r"'levelled' .*; and Keras cannot run it: pip install"):
        prepare_run(by("auto"), of=unknown)
    assert prepare_run(by("auto")).layout.backend == "engine"


def test_the_engine_is_taken_where_it_can_and_keras_where_there_are_no_kernels(
    prepare_run, monkeypatch
):
    layout = prepare_run().layout
    assert (layout.backend, layout.isa, layout.why) == ("engine", native.widest(), "")
    assert layout.by == f"the engine, {native.widest()}"
    monkeypatch.setattr(native, "library", lambda isa: None)
    layout = prepare_run(to="elsewhere").layout
    assert (layout.backend, layout.isa) == ("keras", "")
    assert "no kernels" in layout.why
    with pytest.raises(ConfigError, match="no kernels"):
        prepare_run(by("engine"))


def test_wrong_patches_are_refused_in_the_same_words_by_both(prepare_run, tmp_path):
    fixed = join(tmp_path.as_uri(), "fixed.keras")
    replace_bytes(fixed, model_file(size=(12, 40, 40)))
    for backend in ("auto", "engine", "keras"):
        with pytest.raises(ConfigError, match=r"takes patches of \(12, 40, 40\)"):
            prepare_run(by(backend), of=fixed)


def test_workers_take_the_vectors_of_who_prepared_the_run(prepare_run, values_of, monkeypatch):
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(native, "widest", lambda: "portable")
        prepared = prepare_run()
    assert prepared.layout.isa == "portable"
    found = values_of(prepared)
    asked = values_of(prepare_run(by("engine", isa="portable"), to="asked"))
    for start, values in asked.items():
        np.testing.assert_array_equal(found[start], values)


def test_tiles_are_those_of_the_setting_and_part_of_a_shards_key(prepare_run, values_of):
    found, read = {}, {}
    for tile_px in (1, 4, 6):
        prepared = prepare_run(by("engine", tile_px=tile_px))
        found[tile_px] = values_of(prepared)
        unit = list(predict.phases(predict.load(prepared.run_uri)))[-1].units[0]
        read[tile_px] = predict.reads_shards(unit, run_uri=prepared.run_uri)
        assert f"tiles of {tile_px}" in read[tile_px]
        read[tile_px].remove(f"tiles of {tile_px}")
        engine = predict.network_of(prepared.run_uri).compiled(prepared.layout.patch)
        assert engine.settings.strict == (tile_px == 1)
        assert tile_px == 1 or engine.settings.largest_tile == tile_px
    assert read[1] == read[4] == read[6]
    apart = [abs(values - found[6][start]).max() for start, values in found[1].items()]
    assert 0 < max(apart) < 1e-4


def test_a_worker_without_the_kernels_says_so(prepare_run, cluster, monkeypatch):
    prepared = prepare_run(by("engine"))
    predict._network.cache_clear()
    monkeypatch.setattr(native, "library", lambda isa: None)
    with pytest.raises(StageFailed, match=f"no kernels for isa='{prepared.layout.isa}'"):
        run_prediction(prepared.run_uri, cluster)


def test_what_computes_is_part_of_a_shards_key(prepare_run, cluster):
    read, keys = {}, {}
    for backend, isa in (("engine", "portable"), ("engine", "auto"), ("keras", "auto")):
        prepared = prepare_run(by(backend, isa=isa))
        run_prediction(prepared.run_uri, cluster)
        name = f"{backend} {prepared.layout.isa}"
        found = records.read_commits(prepared.run_uri, "predict", "shards")
        keys[name] = {unit: commit.key for unit, commit in found.items()}
        phase = list(predict.phases(predict.load(prepared.run_uri)))[-1]
        read[name] = predict.reads_shards(phase.units[0], run_uri=prepared.run_uri)
        assert f"by {name}" in read[name]
    every = [key for found in keys.values() for key in found.values()]
    assert len(set(every)) == len(every)
    has_tensorflow = {
        name: any(line.startswith("tensorflow") for line in lines) for name, lines in read.items()
    }
    assert [name for name, has in has_tensorflow.items() if has] == ["keras "]


@pytest.mark.parametrize("source", ["inference/native/winograd.cpp", "inference/engine/choices.py"])
def test_another_engine_is_another_code_of_the_stage(source, monkeypatch):
    module_code, examined = provenance.module_code.__wrapped__, provenance._examined
    before = module_code("alignment.stages.predict")

    def edited(path):
        digest, imported = examined(path)
        return ("another" if path.as_posix().endswith(source) else digest), imported

    monkeypatch.setattr(provenance, "_examined", edited)
    assert module_code("alignment.stages.predict") != before


def test_a_prediction_recorded_before_there_was_a_choice_is_one_of_keras(prepare_run):
    stored = prepare_run().layout.as_dict()
    old = {k: v for k, v in stored.items() if k not in ("backend", "isa", "why")}
    assert type(prepare_run().layout).of(old).by == "Keras"


def test_a_network_of_an_onnx_file(prepare_run, values_of, tmp_path):
    onnx_files = pytest.importorskip("tests.inference.engine.onnx_files", reason="needs onnx")
    weights = {"w": onnx_files.drawn(2, 1, 3, 3, 3), "b": onnx_files.drawn(2)}
    nodes = [
        onnx_files.node("Conv", "x w b", "h", pads=[1] * 6),
        onnx_files.node("Sigmoid", "h"),
    ]
    data = onnx_files.model(nodes, (None, 1, None, None, None), weights=weights, channels=2)
    file = join(tmp_path.as_uri(), "net.onnx")
    replace_bytes(file, data)
    prepared = prepare_run(of=file)
    assert (prepared.layout.backend, prepared.layout.channels) == ("engine", 2)
    assert read_bytes(join(prepared.run_uri, "model.onnx")) == data
    assert all(np.ptp(values) > 0.01 for values in values_of(prepared).values())
    with pytest.raises(ConfigError, match="engine for ONNX"):
        prepare_run(by("keras"), of=file, to="elsewhere")
