"""`petalign train unet` and `petalign train log`."""

import csv
import io
import json
from importlib.util import find_spec

import pytest
from typer.testing import CliRunner

from alignment.cli import app
from alignment.commands.train_unet import read_segment_config
from alignment.errors import ConfigError
from inference.training.config import RSUNetConfig
from inference.training.files import JOURNAL, MODEL
from tests.alignment.learning.labelled_volume import voxels, write_zarr


def call(*arguments):
    return CliRunner().invoke(app, ["train", *map(str, arguments)])


@pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed")
def test_it_trains_tells_what_came_of_it_and_goes_on(tmp_path):
    write_zarr(str(tmp_path / "data"), *voxels())
    folder = tmp_path / "run"
    small = [
        f"--set=training.{each}"
        for each in ("network.layers=2", "network.features_root=2", "patch_px=[1,32,32]",
                     "held_out=2")
    ]  # fmt: skip
    said = call("unet", tmp_path / "data", folder, "--epochs=1", "--steps=2", "--json", *small)
    assert said.exit_code == 0, said.output
    told = json.loads(said.stdout)
    assert (told["epochs"], told["steps"], told["samples"]) == (1, 2, 2)
    assert told["model"] == str(folder / MODEL)
    table = list(csv.DictReader(io.StringIO(call("log", folder / JOURNAL).stdout)))
    assert [row["kind"] for row in table] == [
        "verification", "iteration", "epoch", "verification",
    ]  # fmt: skip
    other = call("unet", tmp_path / "data", folder, "--epochs=2", "--steps=3", *small)
    assert other.exit_code == 3
    assert "other settings (steps_per_epoch)" in other.stderr.replace("\n", " ")


def test_wrong_words_are_answered_with_the_right_ones(tmp_path):
    said = call("unet", tmp_path, tmp_path / "run", "--mode=both")
    assert said.exit_code == 2
    assert "expected one of local, mirrored, sync, async" in said.stderr.replace("\n", " ")
    said = call("unet", tmp_path, tmp_path / "run", "--workers=2")
    assert said.exit_code == 2
    said = call("unet", tmp_path, tmp_path / "run", "--mode=sync", "--workers=2", "--join")
    assert said.exit_code == 2
    assert "gang: true sets it" in said.stderr.replace("\n", " ")
    (tmp_path / "empty.log").write_text("nothing\n")
    assert call("log", tmp_path / "empty.log").exit_code == 3


def test_another_architecture_has_its_own_settings():
    named = ["training.network.architecture=rsunet", "training.network.widths=[4, 8]"]
    config = read_segment_config(None, [*named, "training.patch_px=[4,64,64]"])
    assert config.training.network == RSUNetConfig(widths=(4, 8))
    with pytest.raises(ConfigError, match="features_root"):
        read_segment_config(None, [*named, "training.network.features_root=4"])
