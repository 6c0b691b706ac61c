"""`petalign evaluate matcher`: a table of false matches by ways."""

import json

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from alignment.cli import app


@pytest.fixture(scope="module")
def stacks(tmp_path_factory):
    """Two stacks of three sections of common tissue under noise of their own."""
    import cv2

    folder, paths = tmp_path_factory.mktemp("judged"), []
    for k in range(2):
        random = np.random.default_rng(k)
        tissue = cv2.GaussianBlur(random.normal(size=(200, 200)), (0, 0), 2)
        own = [cv2.GaussianBlur(random.normal(size=(200, 200)), (0, 0), 1) for _ in range(3)]
        images = [tissue / tissue.std() + 1.5 * noise / noise.std() for noise in own]
        voxels = np.clip(np.stack(images) * 25 + 128, 1, 255).astype(np.uint8)
        paths.append(folder / f"{k}.tif")
        tifffile.imwrite(paths[-1], voxels, photometric="minisblack")
    return [path.as_uri() for path in paths]


def call(*arguments):
    settings = ["--mip", "0", "--template", "32", "--radius", "24", "--matches", "200"]
    return CliRunner().invoke(
        app, ["evaluate", "matcher", *arguments, *settings, "--warp", "2", "--tolerance", "5"]
    )


def test_ways_are_compared_on_the_same_matches(stacks):
    answer = call(stacks[0], "--tune", stacks[1], "--json")
    assert answer.exit_code == 0, answer.output
    told = json.loads(answer.stdout)
    assert [(row["way"], row["distance"]) for row in told["rows"]] == [
        ("raw", 1), ("band-pass", 1), ("raw", 2), ("band-pass", 2),
    ]  # fmt: skip
    for row in told["rows"]:
        assert row["rate"]["matches"] == 200
        assert row["rate"]["low"] <= row["share"] <= row["rate"]["high"]
    assert told["band_is"] == f"tuned on {stacks[1]}"


def test_the_table_is_for_people(stacks):
    answer = call(stacks[0], "--distance", "1")
    assert "band-pass 1 to 12 px, the default of features" in answer.stdout
    assert answer.stdout.splitlines()[1].split()[0] == "raw"


def test_what_is_no_network_is_named(stacks, tmp_path):
    (tmp_path / "bad.safetensors").write_bytes(b"x")
    answer = call(stacks[0], "--model", str(tmp_path / "bad.safetensors"))
    assert answer.exit_code == 3
    assert "is not a model of petalign" in answer.output
    assert "petalign train nccnet" in call(stacks[0], "--model", str(tmp_path / "none")).output
