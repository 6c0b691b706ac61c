import json
from collections import Counter
from random import Random

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from alignment.errors import ConfigError
from alignment.recipes.frozen import check_fills
from alignment.recipes.model import Recipe, parse_recipe, read_yaml
from alignment.recipes.parameters import parse_parameter, text_of
from alignment.recipes.sampling import fewest_repetitions, points
from alignment.recipes.template import fill, split_command

PUBLISHED = """
version: 1
files: [main.py]
experiments:
  mnist_hyperparam_search:
    parameters:
      batch_size: [32, 64, 128, 256]
      lr: "0.01-0.09"
      decay: {range: 0.1-0.3, sampling: uniform}
      layers: {range: 0-4, sampling: discrete}
    hardware: {gpu: 1}
    sampling: random
    samples: 45
    workers: 4
    recovery: true
    command: python main.py --batch-size {{batch_size}} --lr {{ lr }} {{decay}} {{layers}}
"""


def test_the_published_form_of_a_recipe_is_understood():
    recipe = parse_recipe(read_yaml(PUBLISHED))
    experiment = recipe.experiments["mnist_hyperparam_search"]
    drawn = points("mnist_hyperparam_search", experiment)
    assert len(drawn) == 45
    repeated = Counter((p["batch_size"], p["layers"]) for p in drawn)
    assert set(repeated.values()) == {2, 3}, "45 samples of 20 combinations"
    assert len({p["lr"] for p in drawn}) == 45
    assert all(0.01 <= p["lr"] < 0.09 and 0.1 <= p["decay"] < 0.3 for p in drawn)
    words = fill(experiment.command, drawn[0])
    assert words[:4] == ("python", "main.py", "--batch-size", str(drawn[0]["batch_size"]))
    assert words[5] == repr(drawn[0]["lr"])


@given(st.integers(1, 60), st.integers(1, 200), st.integers(0, 99))
def test_no_combination_is_repeated_before_all_were_tried(total, count, seed):
    drawn = Counter(fewest_repetitions(total, count, Random(seed)))
    assert drawn.total() == count
    often = [drawn[k] for k in range(total)]
    assert max(often) - min(often) <= 1


def test_a_product_beyond_any_list_is_sampled_without_repetition():
    many = {"range": "1-99999", "sampling": "discrete"}
    raw = {"command": "petalign doctor", "parameters": dict.fromkeys("abcdefgh", many)}
    experiment = parse_recipe(
        {"experiments": {"x": raw | {"sampling": "random", "samples": 50}}}
    ).experiments["x"]
    assert len({tuple(point.values()) for point in points("x", experiment)}) == 50


def test_points_depend_on_the_seed_and_on_nothing_else():
    raw = read_yaml(PUBLISHED)
    experiment = raw["experiments"]["mnist_hyperparam_search"]
    one, again = (parse_recipe(raw).experiments["mnist_hyperparam_search"] for _ in range(2))
    assert points("a", one) == points("a", again)
    experiment["seed"] = 1
    other = parse_recipe(raw).experiments["mnist_hyperparam_search"]
    assert points("a", one) != points("a", other)
    del experiment["seed"], experiment["parameters"]["decay"]
    experiment["command"] = "python main.py"
    fewer = parse_recipe(raw).experiments["mnist_hyperparam_search"]
    assert [p["lr"] for p in points("a", one)] == [p["lr"] for p in points("a", fewer)]


def test_a_grid_has_every_combination_once_in_order():
    raw = {"command": "petalign doctor", "parameters": {"a": [1, 2], "b": ["x", "y"], "c": 0.5}}
    experiment = parse_recipe({"experiments": {"x": raw}}).experiments["x"]
    assert points("x", experiment) == [
        {"a": a, "b": b, "c": 0.5} for a in (1, 2) for b in ("x", "y")
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parameters": {"x": "0.1-0.2"}}, "a range has no end of values"),
        ({"sampling": "random"}, "needs `samples`"),
        ({"samples": 3}, "needs sampling: random"),
        ({"parameters": {"x": "0.2-0.1"}}, "is empty"),
        ({"parameters": {"x": {"range": "1-2"}}}, "expected {range: LOW-HIGH"),
        ({"parameters": {"x": []}}, "needs 1 to"),
    ],
)
def test_what_cannot_be_sampled_is_refused_with_a_way_out(changes, message):
    with pytest.raises(ConfigError, match=message):
        parse_recipe({"experiments": {"x": {"command": "petalign doctor"} | changes}})


def test_every_fault_has_a_line_with_its_path():
    bad = {"command": "python x.py", "workers": 0, "retries": "many", "foo": 1}
    with pytest.raises(ConfigError) as failure:
        parse_recipe({"experiments": {"a": bad}, "files": ["../x"]})
    lines = str(failure.value).splitlines()
    assert {line.partition(":")[0] for line in lines} == {
        "files.0", "experiments.a.workers", "experiments.a.retries", "experiments.a.foo",
    }  # fmt: skip


def test_experiments_are_ordered_by_what_they_depend_on():
    one = {"command": "petalign doctor"}
    recipe = parse_recipe(
        {
            "experiments": {
                "c": one | {"depends_on": ["b"]},
                "b": one | {"depends_on": ["a"]},
                "a": one,
            }
        }
    )
    assert recipe.order() == ["a", "b", "c"]


def test_the_schema_of_a_recipe_describes_what_people_write():
    schema = json.dumps(Recipe.model_json_schema())
    assert "split into words before" in schema
    assert "0.1-0.3" in schema


SAFE = st.text("abcXYZ09 .,:=+@%/()[]-_éß", min_size=1, max_size=12)


@given(SAFE, st.sampled_from(["{{x}}", "--a={{x}}", "a/{{x}}/b", "s3://lab/{{x}}", "-{{x}}"]))
def test_a_value_that_is_let_in_stays_one_argument_in_its_place(value, word):
    try:
        text_of(value)
        filled = fill((word,), {"x": value})
    except ValueError:
        return
    assert filled == (word.replace("{{x}}", value),)
    assert filled[0].startswith("-") <= word.startswith("-")
    assert ".." not in filled[0].split("/")


@given(st.text(max_size=30))
def test_any_text_is_a_parameter_or_refused(text):
    try:
        parameter = parse_parameter(text)
    except ValueError:
        return
    assert parameter.kind == "uniform" or parameter.values == (text,)


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=8), x, max_size=3),
    max_leaves=12,
)


@given(ANY)
def test_any_values_are_a_recipe_or_one_clear_error(values):
    raw = {"experiments": {"a": values}, "files": values}
    with pytest.raises(ConfigError, match=r"experiments|files"):
        parse_recipe(raw)


def test_words_are_split_before_anything_is_filled_in():
    words = split_command("python fit.py '--title={{ x }} y' {{x}}")
    assert words == ("python", "fit.py", "--title={{x}} y", "{{x}}")
    assert fill(words, {"x": "a b -c"})[2:] == ("--title=a b -c y", "a b -c")


def test_the_uris_of_a_recipe_are_found_for_the_allow_list():
    raw = yaml.safe_load("""
        files: [f.py]
        experiments:
          a:
            command: python f.py --in={{x}} s3://lab/{{y}}/b
            parameters: {x: ["s3://lab/raw", "file:///data/raw"], y: [one]}
            environment: {MODEL: "s3://models/n"}
    """)
    recipe = parse_recipe(raw)
    assert check_fills(recipe, {"a": points("a", recipe.experiments["a"])}) == {
        "s3://lab/raw", "file:///data/raw", "s3://lab/one/b", "s3://models/n",
    }  # fmt: skip
