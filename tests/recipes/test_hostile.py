"""What a recipe may not contain: each with the reason that it is refused for."""

import re

import pytest
import yaml

from alignment.errors import ConfigError
from alignment.recipes.frozen import check_fills
from alignment.recipes.model import parse_recipe, read_yaml
from alignment.recipes.sampling import points
from alignment.recipes.surroundings import command_line

COMMAND = "python fit.py --name={{x}}"

VALUES = {
    "semicolon": ("1; rm -rf /", "holds ';'"),
    "and": ("1 && id", "holds '&'"),
    "pipe": ("a|sh", r"holds '\|'"),
    "background": ("a & b", "holds '&'"),
    "substitution": ("$(id)", r"holds '\$'"),
    "backticks": ("`id`", "holds '`'"),
    "variable": ("$HOME", r"holds '\$'"),
    "redirect": ("a>passwd", "holds '>'"),
    "here document": ("a<<EOF", "holds '<'"),
    "glob": ("*", r"holds '\*'"),
    "single quote": ("a' b", 'holds "\'"'),
    "double quote": ('a" b', "holds '\"'"),
    "backslash": ("a\\nb", r"holds '\\\\'"),
    "comment": ("a#b", "holds '#'"),
    "history": ("!!", "holds '!'"),
    "brace expansion": ("{a,b}", r"holds '\{'"),
    "line break": ("a\nrm x", "control character or a line break"),
    "carriage return": ("a\rb", "control character or a line break"),
    "nul": ("a\0b", "control character or a line break"),
    "escape sequence": ("\x1b[2Jx", "control character or a line break"),
    "unicode line separator": ("a\u2028b", "control character or a line break"),
    "right to left override": ("a\u202egnp", "invisible character"),
    "zero width space": ("a\u200bb", "invisible character"),
    "surrogate": ("a\ud800", "invisible character"),
    "full width slash": ("a\uff0f..", "holds '\uff0f'"),
    "one dot leaders": ("\u2024\u2024", "holds '\u2024'"),
    "jinja expression": ("{{ 7*7 }}", "template marks"),
    "jinja statement": ("{% for x in y %}", "template marks"),
    "jinja comment": ("{# x #}", "template marks"),
    "own placeholder": ("{{x}}", "template marks"),
    "parent": ("../secret", r"leads out of its folder"),
    "parent inside": ("a/../../b", r"leads out of its folder"),
    "encoded parent": ("a/%2e%2e/b", r"leads out of its folder"),
    "twice encoded parent": ("a/%252e%252e/b", r"leads out of its folder"),
    "parent behind =": ("a=../b", r"leads out of its folder"),
    "absolute path": ("/etc/passwd", "absolute path"),
    "encoded absolute path": ("%2fetc", "absolute path"),
    "metadata server": ("http://169.254.169.254/latest", "not a place of data"),
    "encoded uri": ("http:%2f%2fhost", "hides a URI"),
    "gopher": ("gopher://host/x", "not a place of data"),
    "kernel": ("file:///proc/self/environ", "not a place of data"),
    "parent in uri": ("s3://lab/a/../b", r"leads out of its folder"),
    "bucket with user": ("s3://me@lab/x", "not a place of data"),
    "uri inside": ("x s3://lab/x", "hides a URI|not a place of data"),
    "empty": ("", "empty value"),
    "too long": ("a" * 2000, "at most 1024 characters"),
    "no text": ([["a"]], "expected text, a number or a boolean"),
    "date": ([yaml.safe_load("2026-01-01")], "expected text, a number or a boolean"),
    "infinity": (float("inf"), "not a finite number"),
}

COMMANDS = {
    "chained": ("python fit.py && id", "'&&' is for a shell"),
    "piped": ("python fit.py | sh", r"'\|' is for a shell"),
    "redirected": ("python fit.py > out", "'>' is for a shell"),
    "semicolon": ("python fit.py; id", "for a shell|is not one of"),
    "substituted": ("python fit.py $(id)", "asks a shell to substitute"),
    "backticks": ("python fit.py `id`", "asks a shell to substitute"),
    "variable": ("python fit.py $HOME", "asks a shell to substitute"),
    "several lines": ("python fit.py\nid", "a command is one line"),
    "open quote": ("python fit.py 'x", "No closing quotation"),
    "nothing": ("", "1 to 256 words"),
    "nul": (["python", "fit.py", "a\0"], "control character"),
    "inline code": ("python -c 'import os'", "python -c is refused"),
    "code from stdin": ("python -", "python - is refused"),
    "other option": ("python -X importtime fit.py", "python -X is refused"),
    "no script": ("python", "python needs a script"),
    "chosen program": ("{{x}} fit.py", "must be the name of an allowed program"),
    "chosen script": ("python {{x}}", r"is not one of the recipe's `files`"),
    "chosen module": ("python -m {{x}}", "plain name of a module"),
    "foreign script": ("python /tmp/fit.py", r"is not one of the recipe's `files`"),
    "script above": ("python ../fit.py", r"is not one of the recipe's `files`"),
    "program by path": ("/bin/sh -c id", "neither a path nor a placeholder"),
    "program above": ("../../bin/sh", "neither a path nor a placeholder"),
    "variable first": ("LD_PRELOAD=x.so python fit.py", "must be the name of an allowed program"),
    "unknown placeholder": ("python fit.py {{y}}", r"\{\{y\}\} is no parameter"),
    "jinja filter": ("python fit.py {{x|upper}}", r"not \{\{name\}\}"),
    "jinja attribute": ("python fit.py {{x.__class__}}", r"not \{\{name\}\}"),
    "jinja statement": ("python fit.py '{% import os %}'", r"not \{\{name\}\}"),
    "petalign option first": ("petalign --help", "petalign needs its verb first"),
}

FILLED = {
    "option": ("python fit.py {{x}}", "--load=secret", "would become the option"),
    "short option": ("python fit.py {{x}}", "-rf", "would become the option"),
    "negative number": ("python fit.py --rate {{x}}", -1, r"write --name=\{\{x\}\}"),
    "parent put together": ("python fit.py --to=.{{x}}/a", ".", "leads out of its folder"),
    "uri put together": ("python fit.py {{x}}//host/a", "s3:", "put together to the URI"),
    "bucket put together": ("python fit.py s3://{{x}}/a", "A B", "names the bucket"),
    "uri within a word": ("python fit.py --a={{x}},s3://b/c", "y", "does not stand alone"),
}

OTHERS = {
    "path in environment": ({"environment": {"PATH": "x"}}, "not for recipes to set"),
    "preload": ({"environment": {"LD_PRELOAD": "x.so"}}, "not for recipes to set"),
    "python path": ({"environment": {"PYTHONSTARTUP": "x"}}, "not for recipes to set"),
    "own variables": ({"environment": {"PETALIGN_OUTPUT": "x"}}, "not for recipes to set"),
    "stored secret": ({"environment": {"DB_PASSWORD": "x"}}, "looks like a secret"),
    "variable's name": ({"environment": {"A=B": "x"}}, "capital letters, digits"),
    "variable's value": ({"environment": {"A": "x\ny"}}, "control character"),
    "fetch above": ({"fetch": ["../a"], "depends_on": ["../a"]}, "match pattern"),
    "unknown dependency": ({"depends_on": ["b"]}, "no experiment 'b'"),
    "itself": ({"depends_on": ["a"]}, "goes round"),
    "unknown key": ({"image": "alpine"}, "image: no such key"),
    "misspelt key": ({"retrys": 1}, "did you mean 'retries'"),
    "huge grid": ({"parameters": {k: list(range(99)) for k in "xyz"}}, "970299 combinations"),
    "huge range": ({"parameters": {"x": {"range": "0-1e9", "sampling": "discrete"}}}, "whole ends"),
    "long range": ({"parameters": {"x": {"range": "0-9999999", "sampling": "discrete"}}}, "may"),
    "hardware": ({"hardware": {"gpu": -1}}, "greater than 0"),
    "workers": ({"workers": 10**9}, "less than or equal to 10000"),
}


def refused(experiment, **more):
    """Do what `freeze` does before it writes anything; return why it refuses."""
    raw = {"files": ["fit.py"], "experiments": {"a": experiment}} | more
    with pytest.raises(ConfigError) as failure:
        check(raw)
    return str(failure.value)


def check(raw):
    recipe = parse_recipe(raw)
    check_fills(recipe, {"a": points("a", recipe.experiments["a"])})


def test_the_corpus_is_as_large_as_promised():
    assert len(VALUES) + len(COMMANDS) + len(FILLED) + len(OTHERS) >= 100


@pytest.mark.parametrize("name", VALUES)
def test_a_hostile_value_is_refused(name):
    value, reason = VALUES[name]
    message = refused({"command": COMMAND, "parameters": {"x": value}})
    assert message.startswith("experiments.a.parameters.x: ")
    assert re.search(reason, message)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_hostile_command_is_refused(name):
    command, reason = COMMANDS[name]
    message = refused({"command": command, "parameters": {"x": "y"}})
    assert re.search(reason, message)


@pytest.mark.parametrize("name", FILLED)
def test_a_value_cannot_become_something_else_where_it_is_put(name):
    command, value, reason = FILLED[name]
    message = refused({"command": command, "parameters": {"x": value}})
    assert "task 00000" in message
    assert re.search(reason, message)


@pytest.mark.parametrize("name", OTHERS)
def test_a_hostile_experiment_is_refused(name):
    changes, reason = OTHERS[name]
    message = refused({"command": COMMAND, "parameters": {"x": "y"}} | changes)
    assert re.search(reason, message)


@pytest.mark.parametrize(
    "file", ["../fit.py", "/etc/passwd", "a/../../b", "a//b", "-rf", "a b", "$x", ".."]
)
def test_files_lie_beside_the_recipe(file):
    assert "files.0" in refused({"command": COMMAND, "parameters": {"x": 1}}, files=[file])


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: !!python/object/apply:os.system [id]", "could not determine a constructor"),
        ("a: !!python/name:os.system", "could not determine a constructor"),
        ("a: &a [1]\nb: *a", "no references"),
        ("a: 1\na: 2", "stands there twice"),
        ("[1, 2]", "a recipe is a mapping"),
        ("a: [" * 5000, "not valid YAML"),
        ("a: " + "x" * 300_000, "longer than"),
        ("{", "not valid YAML"),
    ],
)
def test_yaml_is_plain_data(text, reason):
    with pytest.raises(ConfigError, match=reason):
        read_yaml(text)


@pytest.mark.parametrize("program", ["bash", "sh", "curl", "sudo", "Python"])
def test_only_allowed_programs_run(program):
    with pytest.raises(ConfigError, match="not allowed here; allowed are petalign, python, blastn"):
        command_line([program, "-c", "id"], {"blastn": "/usr/bin/blastn"})
    assert command_line(["blastn", "-h"], {"blastn": "/usr/bin/blastn"}) == [
        "/usr/bin/blastn",
        "-h",
    ]
