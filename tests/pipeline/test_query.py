"""A person asks where a point of the aligned volume comes from, and where a source point went."""

import json

import numpy as np
from typer.testing import CliRunner

from alignment.cli import app
from alignment.commands.query import to_source
from alignment.runs import load
from alignment.stages import inputs


def query(*words):
    result = CliRunner().invoke(app, ["query", *(str(word) for word in words)])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_points_map_both_ways_through_the_command_line(aligned_run):
    volume = load(aligned_run).volume_uri
    there = json.loads(query(volume, "--point", "4,150,160.5", "--point", "0,9,8", "--json"))
    first, second = there["points"]
    assert (first["z"], second["z"]) == (4, 0)
    assert first["aligned"] == {"y": 150, "x": 160.5}
    source = first["source"]
    expected = to_source(aligned_run, 4, np.array([[150.0, 160.5]]))[0]
    np.testing.assert_allclose([source["y"], source["x"]], expected, atol=0.001)
    asked = f"4,{source['y']},{source['x']}"
    back = json.loads(query(aligned_run, "--point", asked, "--to-aligned", "--json"))["points"][0]
    assert back["given"] == "source"
    np.testing.assert_allclose([back["aligned"]["y"], back["aligned"]["x"]], [150, 160.5], atol=0.1)


def test_a_point_is_answered_in_one_line(aligned_run):
    y, x = to_source(aligned_run, 4, np.array([[150.0, 160.0]]))[0]
    line = query(aligned_run, "4", "150", "160")
    assert line == f"aligned (z 4, y 150.000, x 160.000) -> source (z 4, y {y:.3f}, x {x:.3f}) px\n"


def test_points_without_tissue_say_so(aligned_run):
    (bridged,) = inputs.missing(aligned_run)
    assert "bridged" in query(aligned_run, "--point", f"{bridged},150,160")
    assert "outside the aligned volume" in query(aligned_run, "--point", "1,-20,160")
