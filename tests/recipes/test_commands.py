"""`petalign recipe` as a person or a script sees it; the cluster is one in threads."""

import json
from contextlib import nullcontext

import pytest
from typer.testing import CliRunner

from alignment.cli import app
from alignment.commands.recipe import run_here
from alignment.errors import ConfigError
from alignment.recipes.states import known_ids

RECIPE = """
name: squares
files: [task.py]
experiments:
  a: {command: "python task.py {{n}}", parameters: {n: [1, 2, 3]}, workers: 2, retries: 0}
  b: {command: python task.py 9, depends_on: [a]}
"""
TASK = """
import json, sys
n = int(sys.argv[1])
print("n is", n)
json.dump({"n": n}, open("result.json", "w"))
"""


@pytest.fixture
def petalign(monkeypatch, tmp_path, client):
    monkeypatch.setattr("alignment.blockwise.local_client", lambda _: nullcontext(client))
    monkeypatch.setenv("PETALIGN_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    (tmp_path / "task.py").write_text(TASK)
    runner = CliRunner()
    return lambda *words: runner.invoke(app, ["recipe", *words])


def test_a_recipe_from_check_to_logs(petalign, tmp_path):
    assert json.loads(petalign("check", "recipe.yaml", "--json").stdout) == {"a": 3, "b": 1}
    assert "after" in petalign("check", "recipe.yaml").stdout
    assert "no recipes in" in petalign("ps").stdout
    done = petalign("up", "recipe.yaml", "--local")
    assert done.exit_code == 0, done.output
    key = done.stdout.strip()
    assert len(key) == 6
    assert "4/4" in petalign("ps").stdout
    listed = petalign("ps", key)
    assert listed.exit_code == 0
    assert "3/3" in listed.stdout
    state = json.loads(petalign("ps", key, "--tasks", "--json").stdout)
    assert (state["state"], state["name"]) == ("done", "squares")
    assert [task["result"] for task in state["tasks"]] == [{"n": n} for n in (1, 2, 3, 9)]
    assert petalign("logs", f"{key}/a/1").stdout == "n is 2\n"


def test_a_failure_has_an_exit_code_and_what_depends_on_it_is_not_begun(petalign, tmp_path):
    (tmp_path / "task.py").write_text("raise SystemExit('broken')")
    failed = petalign("up", "recipe.yaml", "--local")
    assert failed.exit_code == 4
    assert "3 of 3 tasks failed" in failed.stderr
    assert "b was not begun: a failed" in failed.stderr
    assert "go on with: petalign recipe up recipe.yaml" in failed.stderr
    (key,) = known_ids(f"file://{tmp_path}/home/recipes")
    listed = petalign("ps", key)
    assert listed.exit_code == 4
    assert "broken" in listed.stdout


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("ps", "zzzzzz"), 2, "no recipe 'zzzzzz'"),
        (("logs", "zzzzzz/a/1"), 2, "no recipe 'zzzzzz'"),
        (("logs", "zzzzzz"), 2, "expected a task as ID/EXPERIMENT/NUMBER"),
        (("down", "zzzzzz"), 2, "no recipe 'zzzzzz'"),
        (("down", "../../etc"), 2, "no recipe '../../etc'"),
        (("up", "nothing.yaml", "--local"), 2, "cannot read the recipe nothing.yaml"),
        (("up", "recipe.yaml"), 2, "no platform is up"),
        (("up", "recipe.yaml", "--local", "--program", "x=sh"), 2, "expected NAME=/absolute/path"),
        (("up", "recipe.yaml", "--local", "--program", "x=/etc/passwd"), 2, "cannot be run"),
        (("up", "recipe.yaml", "--local", "--store", "http://host/x"), 2, "scheme 'http'"),
    ],
)
def test_a_wrong_word_is_answered_with_what_to_do(petalign, words, code, message):
    answer = petalign(*words)
    assert answer.exit_code == code
    assert message in answer.stderr.replace("\n", " ")


def test_an_unknown_task_is_answered_with_those_that_exist(petalign):
    key = petalign("up", "recipe.yaml", "--local").stdout.strip()
    assert "has the tasks 00000 to 00002" in petalign("logs", f"{key}/a/7").stderr
    assert "has no experiment 'c'; there are a, b" in petalign("logs", f"{key}/c/0").stderr
    assert f"there are {key}" in petalign("ps", "zzzzzz").stderr


def test_down_then_up_goes_on(petalign):
    key = petalign("up", "recipe.yaml", "--local").stdout.strip()
    assert "nothing was under way" in petalign("down", key).stdout
    assert petalign("up", "recipe.yaml", "--local").stdout.strip() == key
    assert json.loads(petalign("ps", key, "--json").stdout)["experiments"][0]["starts"] == 3


def test_a_recipe_with_a_fault_writes_nothing(petalign, tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE.replace("retries: 0", "retrys: 0"))
    answer = petalign("up", "recipe.yaml", "--local")
    assert answer.exit_code == 2
    assert "did you mean 'retries'" in answer.stderr
    assert not (tmp_path / "home").exists()


def test_a_link_out_of_the_recipes_folder_is_no_file_of_it(petalign, tmp_path):
    (tmp_path / "task.py").unlink()
    (tmp_path / "task.py").symlink_to("/etc/passwd")
    answer = petalign("up", "recipe.yaml", "--local")
    assert answer.exit_code == 2
    assert "leads out of the recipe's folder" in answer.stderr


def test_here_too_programs_must_be_allowed(recipe):
    frozen = recipe("experiments: {a: {command: blastn x}}")
    with pytest.raises(ConfigError, match="program 'blastn' is not allowed; allow it with"):
        run_here(frozen, workers=1, programs={}, tell=lambda *_: None)


def test_the_schema_is_json(petalign):
    schema = json.loads(petalign("schema").stdout)
    assert schema["additionalProperties"] is False
    assert set(schema["properties"]) == {"version", "name", "files", "experiments"}
