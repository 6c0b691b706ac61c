"""`petalign predict` as a script sees it: what it prints, refuses, and leaves."""

import json

import pytest
from typer.testing import CliRunner

from alignment.cli import app
from inference import native
from storage import open_prediction
from tests.networks import model_file
from tests.published import publish_aligned, texture

SMALL = [
    "--set", "patches.patch_px=[10,38,38]", "--set", "patches.margin_px=[3,3,3]", "--workers", "1",
]  # fmt: skip


@pytest.fixture
def petalign(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    runner = CliRunner()
    return lambda *words: runner.invoke(app, [str(word) for word in words])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("patches.bach=2", "did you mean 'patches.batch'"),
        ("patches.batch=0", "patches.batch: Input should be greater"),
        ("batch", "expected STAGE.NAME=VALUE"),
    ],
)
def test_a_wrong_setting_stops_with_2_before_a_worker_is_started(petalign, setting, message):
    refused = petalign("predict", "aligned", "model.keras", "out", "--set", setting)
    assert refused.exit_code == 2
    assert message in refused.stderr


@pytest.mark.slow
def test_a_prediction_is_planned_run_looked_at_and_resumed(petalign, tmp_path):
    publish_aligned((tmp_path / "aligned").as_uri(), texture())
    (tmp_path / "model.keras").write_bytes(model_file())
    planned = petalign("predict", "aligned", "model.keras", "out", *SMALL, "--plan", "--json")
    assert planned.exit_code == 0, planned.output
    told = json.loads(planned.stdout)
    assert told["layout"]["shard"] == [8, 96, 96]
    assert told["figures"]["patches"] == 24
    assert not (tmp_path / "out").exists()

    done = petalign("predict", "aligned", "model.keras", "out", *SMALL)
    assert done.exit_code == 0, done.output
    assert "24 patches of (10, 38, 38)" in done.stderr
    assert f"computed by {'the engine' if native.widest() else 'Keras'}" in done.stderr
    assert "version 1" in done.stdout
    assert open_prediction(tmp_path / "out").shape == (2, 8, 100, 90)

    status = petalign("status", "out", "--json")
    assert status.exit_code == 0
    (stage,) = json.loads(status.stdout)["stages"]
    assert (stage["stage"], stage["status"], stage["blocks_done"]) == ("predict", "done", 3)
    resumed = petalign("resume", "out", "--workers", 1, "--json")
    assert resumed.exit_code == 0, resumed.output
    assert json.loads(resumed.stdout)["epoch"] == 1
    assert petalign("verify", "out", "--full").exit_code == 0
    report = petalign("report", "out")
    assert report.exit_code == 3
    assert "is a prediction" in report.stderr

    (tmp_path / "bad.keras").write_bytes(b"\x80\x04\x95 a pickle")
    bad = petalign("predict", "aligned", "bad.keras", "other", *SMALL)
    assert bad.exit_code == 2
    assert "expected a Keras 3 archive" in bad.stderr
    assert not (tmp_path / "other").exists()
