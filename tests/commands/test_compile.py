"""`petalign compile` as a script sees it: what it prints and refuses."""

import json

import pytest
from typer.testing import CliRunner

from alignment.cli import app
from inference import native
from inference.engine import compile
from tests.networks import model_file, saved

keras = pytest.importorskip("keras", reason="the extra `train` is not installed")
pytest.importorskip("tensorflow", reason="the extra `train` is not installed")
pytestmark = pytest.mark.skipif(native.widest() is None, reason="the kernels are not built")

SHAPE = (8, 24, 26, 1)


@pytest.fixture
def petalign(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.keras").write_bytes(model_file())
    runner = CliRunner()
    return lambda *words: runner.invoke(app, ["compile", *words])


def _engine(tmp_path, **settings):
    return compile(tmp_path / "model.keras", SHAPE, tuning=False, **settings)


def test_the_plan_is_that_of_the_engine(petalign, tmp_path):
    done = petalign("model.keras", "--shape", "8,24,26,1", "--plan", "--threads", "2")
    assert done.exit_code == 0, done.output
    engine = _engine(tmp_path, threads=2)
    assert done.stdout == engine.plan() + "\n"
    assert "pass: " in done.stdout
    assert f"\nmemory: {engine.working_bytes / 1e6:,.1f} MB" in done.stdout


def test_without_a_plan_it_is_one_line(petalign, tmp_path):
    done = petalign("model.keras", "--shape", "8,24,26,1", "--isa", "portable")
    assert done.exit_code == 0, done.output
    (line,) = done.stdout.splitlines()
    steps = len(_engine(tmp_path, isa="portable").program.labels)
    assert line.startswith(f"portable, {steps} steps, memory ")


@pytest.mark.parametrize(
    ("tile", "settings"),
    [("1", {"strict": True}), ("2", {"largest_tile": 2}), ("6", {"largest_tile": 6})],
)
def test_tiles_are_as_asked(petalign, tmp_path, tile, settings):
    image = keras.Input((48, 48, 16))
    convolved = keras.layers.Conv2D(16, 3, padding="same")(image)
    (tmp_path / "flat.keras").write_bytes(saved(keras.Model(image, convolved)))
    done = petalign("flat.keras", "--shape", "48,48,16", "--plan", "--tile", tile)

    def plan(**settings):
        return compile(tmp_path / "flat.keras", (48, 48, 16), tuning=False, **settings).plan()

    assert done.stdout == plan(**settings) + "\n"
    assert plan(**settings) != plan()


def test_a_script_gets_one_document(petalign, tmp_path):
    done = petalign("model.keras", "--shape", "8,24,26,1", "--json")
    engine = _engine(tmp_path)
    assert json.loads(done.stdout) == {
        "isa": native.widest(),
        "threads": 1,
        "memory_bytes": engine.working_bytes,
        "weights_bytes": engine.program.weights_bytes,
        "passes": list(engine.graph.notes),
        "steps": list(engine.program.labels),
    }


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ("24,26", "expected Z,Y,X,C, or Y,X,C"),
        ("8,24,x,1", "expected 4 numbers above 0"),
        ("24,26,1", "the model takes"),
        ("8,24,26,3", "the model takes (None, None, None, 1), without the batch"),
    ],
)
def test_a_wrong_shape_stops_with_2(petalign, shape, message):
    refused = petalign("model.keras", "--shape", shape)
    assert refused.exit_code == 2, refused.output
    assert message in refused.stderr


def test_a_layer_that_is_not_known_stops_with_2_and_its_name(petalign, tmp_path):
    image = keras.Input(SHAPE)
    levelled = keras.layers.LayerNormalization(name="levelled")(image)
    (tmp_path / "other.keras").write_bytes(saved(keras.Model(image, levelled)))
    refused = petalign("other.keras", "--shape", "8,24,26,1", "--plan")
    assert refused.exit_code == 2, refused.output
    assert "layer 'levelled' of the kind LayerNormalization" in refused.stderr
    assert not refused.stdout


def test_what_is_no_model_stops_as_with_the_other_commands(petalign, tmp_path):
    (tmp_path / "bad.keras").write_bytes(b"\x80\x04\x95 a pickle")
    assert petalign("bad.keras", "--shape", "8,24,26,1").exit_code == 2
    assert petalign("none.keras", "--shape", "8,24,26,1").exit_code == 3
