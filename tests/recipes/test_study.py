"""The recipe of docs/recipes/study: what it plans, and that it trains and compares."""

import json
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from alignment.cli import app
from alignment.commands.train_unet import read_segment_config
from alignment.recipes.frozen import freeze, load
from alignment.recipes.local import run_recipe
from alignment.recipes.states import read_log
from storage.store import join, read_json
from tests.pages import DOCS

FOLDER = DOCS / "recipes" / "study"


def test_it_plans_a_task_for_each_training():
    said = CliRunner().invoke(app, ["recipe", "check", str(FOLDER / "recipe.yaml"), "--json"])
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout) == {"data": 1, "train": 21, "compare": 1}


@pytest.mark.parametrize("path", sorted(FOLDER.glob("[!r]*.yaml")), ids=lambda path: path.stem)
def test_the_settings_of_the_studies_are_valid_and_keep_sections_apart(path):
    config = read_segment_config(path, None)
    assert config.data.kept_apart > 0
    assert config.training.patience == 0


@pytest.mark.slow
@pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed")
def test_trainings_run_as_tasks_and_are_compared(tmp_path, client):
    shutil.copytree(FOLDER, tmp_path / "study")
    recipe, settings = (tmp_path / "study" / f"{name}.yaml" for name in ("recipe", "settings"))
    planned = yaml.safe_load(recipe.read_text())
    planned["experiments"]["train"]["parameters"] |= {
        "run": ["local-1", "sync-2"], "seed": {"range": "3-3", "sampling": "discrete"},
    }  # fmt: skip
    recipe.write_text(yaml.safe_dump(planned, sort_keys=False))
    told = yaml.safe_load(settings.read_text())
    told["training"] |= {"epochs": 1, "steps_per_epoch": 2, "held_out": 2}
    settings.write_text(yaml.safe_dump(told))
    frozen = load(freeze(recipe, f"{tmp_path}/store"))
    run_recipe(frozen, client)
    found = read_json(join(frozen.uri, "records/compare/00000.json"))
    assert found["result"] == {"trainings": 2}
    assert {Path(name).name for name in found["outputs"]} >= {"study.csv", "study.md", "all.png"}
    assert "| sync-2 < local |" in read_log(frozen, "compare", "0")
