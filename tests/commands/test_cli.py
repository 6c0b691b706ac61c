"""The command line as a script sees it: output, files, exit codes."""

import json

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from alignment.cli import app
from alignment.config import PipelineConfig, load_config


@pytest.fixture
def petalign(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    return lambda *words: runner.invoke(app, [str(word) for word in words])


@pytest.fixture
def stack(tmp_path):
    path = tmp_path / "raw.tif"
    images = np.random.default_rng(0).integers(1, 255, (3, 96, 80), np.uint8)
    tifffile.imwrite(path, images, photometric="minisblack")
    return path


def test_init_writes_every_setting_and_never_overwrites_unasked(petalign, tmp_path):
    assert petalign("init").exit_code == 0
    written = tmp_path / "petalign.yaml"
    assert load_config(written.read_text()) == PipelineConfig()
    written.write_text("mine")
    refused = petalign("init")
    assert refused.exit_code == 2
    assert "exists" in refused.stderr
    assert written.read_text() == "mine"
    assert petalign("init", "--force").exit_code == 0
    assert load_config(written.read_text()) == PipelineConfig()


def test_a_misspelt_setting_stops_with_2_before_anything_is_written(petalign, stack, tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("relax: {stifness: 3}")
    result = petalign("align", stack, tmp_path / "out.zarr", "--config", config)
    assert result.exit_code == 2
    assert "relax.stifness" in result.stderr
    assert "did you mean 'stiffness'" in result.stderr
    assert not (tmp_path / "out.zarr").exists()


@pytest.mark.parametrize("setting", ["relax.stiffness=-1", "stiffness=1", "relax.stiffness"])
def test_a_wrong_set_option_stops_with_2(petalign, stack, tmp_path, setting):
    result = petalign("align", stack, tmp_path / "out.zarr", "--set", setting)
    assert result.exit_code == 2
    assert "stiffness" in result.stderr
    assert not (tmp_path / "out.zarr").exists()


def test_a_missing_input_stops_with_3_and_names_it(petalign, tmp_path):
    result = petalign("align", tmp_path / "nothing.tif", tmp_path / "out.zarr")
    assert result.exit_code == 3
    assert "nothing.tif" in result.stderr
    assert not (tmp_path / "out.zarr").exists()


def test_a_scheme_that_is_not_allowed_stops_with_2(petalign, tmp_path):
    result = petalign("align", "http://169.254.169.254/latest", tmp_path / "out.zarr")
    assert result.exit_code == 2
    assert "http" in result.stderr


def test_a_single_section_stops_with_3(petalign, tmp_path):
    tifffile.imwrite(tmp_path / "one.tif", np.ones((64, 64), np.uint8))
    result = petalign("align", tmp_path / "one.tif", tmp_path / "out.zarr")
    assert result.exit_code == 3
    assert "at least 2" in result.stderr


def test_plan_counts_what_a_run_would_write_and_writes_nothing(petalign, stack, tmp_path):
    before = sorted(tmp_path.iterdir())
    result = petalign("plan", stack, "--json")
    assert result.exit_code == 0
    plan = json.loads(result.stdout)
    assert plan["shape"] == [3, 96, 80]
    by_stage = {stage["stage"]: stage for stage in plan["stages"]}
    assert by_stage["ingest"]["units"] == 3
    assert by_stage["render"]["data_objects"] == 1
    assert by_stage["render"]["values_bytes"] == 3 * 101 * 84, "5 % more each way, rounded up"
    assert sorted(tmp_path.iterdir()) == before
    assert "core-hours" in petalign("plan", stack).stdout


def test_a_stack_that_is_not_there_yet_is_planned_by_its_shape(petalign):
    result = petalign("plan", "--shape", "24,1024,1024", "--resolution", "30,4,4", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["resolution_nm"] == [30, 4, 4]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "--shape"),
        (("--shape", "24,1024"), "3 numbers"),
        (("--shape", "1,64,64"), "two sections"),
        (("--shape", "24,1024,1024", "--rates", "none.json"), "--calibrate"),
        (("--shape", "24,1024,1024", "--prices", "none.yaml"), "none.yaml"),
    ],
)
def test_a_plan_that_cannot_be_made_stops_with_2_and_says_why(petalign, words, told):
    result = petalign("plan", *words)
    assert result.exit_code == 2
    assert told in result.stderr


@pytest.mark.parametrize(
    ("words", "setting"),
    [
        (("--shape", "7600,187000,92000"), "match.levels[-1].node_spacing_px"),
        (("--shape", "9,4096,4096", "--worker-memory-gib", "0.5"), "finest mip"),
        (("--shape", "9,4096,4096", "--max-price", "0"), "--max-price"),
        (("--shape", "9,4096,4096", "--max-core-hours", "0.001"), "stage 'match'"),
    ],
)
def test_a_plan_beyond_limits_is_printed_and_refused_with_2(petalign, words, setting):
    result = petalign("plan", *words)
    assert "core-hours" in result.stdout
    assert result.exit_code == 2
    assert setting in result.stderr


def test_ingest_copies_a_stack_voxel_by_voxel(petalign, stack, tmp_path):
    from storage.sections import open_source, read_section

    assert petalign("ingest", stack, tmp_path / "raw.zarr").exit_code == 0
    copied, original = open_source(tmp_path / "raw.zarr"), tifffile.imread(stack)
    for z in range(3):
        np.testing.assert_array_equal(read_section(copied, z), original[z])


def test_status_of_nothing_says_what_was_expected(petalign, tmp_path):
    result = petalign("status", tmp_path)
    assert result.exit_code == 3
    assert "holds no run" in result.stderr


def test_score_of_a_repeated_section_is_one(petalign, tmp_path):
    image = np.random.default_rng(0).integers(1, 255, (128, 128), np.uint8)
    tifffile.imwrite(tmp_path / "same.tif", np.stack([image, image]), photometric="minisblack")
    figures = json.loads(petalign("score", tmp_path / "same.tif", "--json").stdout)
    assert figures["count"] == 4
    assert figures["p5"] == pytest.approx(1)
