"""What `petalign query` refuses, and what it then says to do; tests/pipeline has its answers."""

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from alignment.cli import app
from alignment.commands.query import Answer, parse_point
from alignment.errors import ConfigError
from alignment.runs import prepare


def query(*words):
    return CliRunner().invoke(app, ["query", *(str(word) for word in words)])


@pytest.fixture
def begun(tmp_path):
    """A run of which no stage has run."""
    images = np.full((3, 96, 80), 90, np.uint8)
    tifffile.imwrite(tmp_path / "raw.tif", images, photometric="minisblack")
    return prepare(str(tmp_path / "raw.tif"), str(tmp_path / "out.zarr"), {})


@pytest.mark.parametrize("text", ["1,2", "1,2,3,4", "1.5,2,3", "a,b,c", ""])
def test_a_point_that_is_none_stops_with_2_and_shows_one(begun, text):
    result = query(begun, "--point", text)
    assert result.exit_code == 2
    assert "12,2048.5,977" in result.stderr
    assert result.stdout == ""


def test_no_point_at_all_stops_with_2_and_says_how_to_give_one(begun):
    result = query(begun)
    assert result.exit_code == 2
    assert "--point Z,Y,X" in result.stderr


def test_a_section_beyond_the_stack_stops_with_3_and_says_which_there_are(begun):
    result = query(begun, "--point", "3,1,1")
    assert result.exit_code == 3
    assert "section 3 does not exist; the run has 0 ... 2" in result.stderr


def test_a_point_at_infinity_stops_with_3(begun):
    result = query(begun, "--point", "1,nan,1")
    assert result.exit_code == 3
    assert "must be finite" in result.stderr


def test_a_run_without_a_field_stops_with_3_and_says_how_to_go_on(begun):
    for words in (("--point", "1,10,20"), ("1", "10", "20", "--to-aligned")):
        result = query(begun, *words)
        assert result.exit_code == 3
        assert "relax is not done" in result.stderr
        assert f"petalign resume {begun}" in result.stderr


def test_a_volume_without_a_run_stops_with_3(tmp_path):
    result = query(tmp_path / "nothing.zarr", "--point", "1,1,1")
    assert result.exit_code == 3
    assert "holds no run" in result.stderr


def test_a_point_may_be_negative():
    assert parse_point("0,-3.5,-1e2") == (0, -3.5, -100.0)
    with pytest.raises(ConfigError):
        parse_point("z,1,2")


def test_an_answer_is_one_line_in_the_direction_asked():
    answer = Answer(
        4, (1.0, 2.0), (3.00049, -4.0), "source", "s4.tif", ("outside the aligned volume",)
    )
    assert answer.line == (
        "source (z 4, y 3.000, x -4.000) -> aligned (z 4, y 1.000, x 2.000) px; "
        "outside the aligned volume"
    )
    assert answer.as_dict()["source"] == {"y": 3.0, "x": -4.0}
