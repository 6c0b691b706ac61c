"""Studies of training modes: what is compared where, and what is said of it."""

import csv
import json
from importlib.util import find_spec

import numpy as np
import pytest
from typer.testing import CliRunner

from alignment.cli import app
from alignment.errors import ConfigError, DataError
from alignment.learning.study.collect import by_kind, read_study
from alignment.learning.study.compare import (
    HELD_OUT_LOSS,
    LOSS,
    Measure,
    common_end,
    compare,
    value_at,
)
from alignment.learning.study.grid import DONE, LOST, RUNS, Combination, combinations
from alignment.learning.study.report import report_study
from alignment.learning.study.words import sentences
from inference.training.files import LOG
from inference.training.progress import Progress, add_row
from tests.alignment.learning.labelled_volume import voxels, write_zarr

STEPS, EPOCHS, SEEDS = 10, 6, (1, 2, 3)


def write_run(folder, name, curve, *, finished=True, held_out=None):
    """Write what a training leaves whose loss is a function of its samples."""
    mode, workers, _ = Combination.of(name)
    each = STEPS * (workers if mode == "sync" else 1)
    place = folder / RUNS / name
    place.mkdir(parents=True)
    for epoch in range(EPOCHS + 1):
        n = epoch * each
        loss = curve(n - each / 2) if epoch else np.nan  # the mean of a straight piece
        kept = (held_out or curve)(n)
        add_row(
            place / LOG,
            Progress(
                epoch, epoch * STEPS, n, 2.0 * epoch, loss, kept, kept / 10, 1 - kept, 1 - kept,
                1.0, 1, 1e-3, 0.5 * (mode == "async"), int(mode == "async"),
            ),
        )  # fmt: skip
    if finished:
        (place / DONE).write_text(json.dumps({"apart": None, LOST: 0}))


def falling(by, seed=0):
    return lambda samples: 0.9 + 0.01 * seed - by * samples


@pytest.fixture
def study(tmp_path):
    """As published: in step the loss falls by the sample, and apart half as fast."""
    for seed in SEEDS:
        write_run(tmp_path, f"local-1-{seed}", falling(0.002, seed))
        for workers in (1, 3):
            write_run(tmp_path, f"sync-{workers}-{seed}", falling(0.002, seed))
            write_run(tmp_path, f"async-{workers}-{seed}", falling(0.001, seed))
    return tmp_path


def test_a_grid_has_local_once_a_seed_and_all_of_a_seed_together():
    found = [each.name for each in combinations(["async", "local"], [1, 2], [5, 6])]
    assert found[:3] == ["local-1-5", "async-1-5", "async-2-5"]
    assert len(found) == 6
    with pytest.raises(ConfigError, match="expected some of local"):
        combinations(["both"], [1], [1])
    with pytest.raises(DataError, match="MODE-WORKERS-SEED"):
        Combination.of("sync-3")


def test_only_finished_trainings_count_and_the_table_is_tidy(study):
    write_run(study, "sync-2-1", falling(0.002), finished=False)
    report = report_study(study, combinations(["local", "sync"], [2], [1]))
    assert [each.name for each in report.missing] == ["sync-2-1"]
    assert "Not finished, so not in here: sync-2-1." in (study / "study.md").read_text()
    with (study / "study.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 15 * (EPOCHS + 1)
    assert list(rows[0]) == [
        "mode", "workers", "seed", "epoch", "step", "samples", "seconds", "loss", "held_out_loss",
        "held_out_error", "held_out_dice", "staleness",
    ]  # fmt: skip
    assert (rows[0]["loss"], rows[0]["held_out_loss"]) == ("", "0.91")
    names = {path.name for path in report.files}
    assert names == {"study.csv", "async-3.png", "sync-3.png", "all.png", "study.md"}
    for path in report.files:
        if path.suffix == ".png":
            assert path.read_bytes().startswith(b"\x89PNG")


def test_no_finished_training_is_said(tmp_path):
    write_run(tmp_path, "local-1-1", falling(0.002), finished=False)
    with pytest.raises(DataError, match="no finished training"):
        read_study(tmp_path)


def test_at_equal_samples_a_training_loss_stands_in_the_middle_of_its_epoch(study):
    kinds = by_kind(read_study(study))
    every = [each for some in kinds.values() for each in some]
    assert common_end(every, HELD_OUT_LOSS, "samples") == STEPS * EPOCHS
    place = common_end(every, LOSS, "samples")
    assert place == STEPS * (EPOCHS - 0.5)
    (first, *_) = kinds[("sync", 3)]
    # Losses are a straight line of the samples: read anywhere, they are on it.
    assert value_at(first, LOSS, "samples", place) == pytest.approx(falling(0.002, 1)(place))
    held = value_at(first, HELD_OUT_LOSS, "samples", 45.0)
    assert held == pytest.approx(falling(0.002, 1)(45.0))
    assert value_at(first, Measure("", "step"), "samples", 45.0) == 15
    assert np.isnan(value_at(first, LOSS, "samples", 3.0)), "before the first there is nothing"


def test_the_same_curve_by_samples_is_lower_in_step_by_epochs_and_equal_by_samples(study):
    kinds = by_kind(read_study(study))
    pair = ("sync", 3), ("local", 1)
    by_epochs = compare(kinds, pair, LOSS, "epoch")
    assert by_epochs.verdict == "holds"
    assert by_epochs.differences == pytest.approx([-0.002 * 2 * STEPS * (EPOCHS - 0.5)] * 3)
    assert compare(kinds, pair, LOSS, "samples").verdict == "equal"
    assert compare(kinds, (("sync", 1), ("local", 1)), LOSS, "epoch").verdict == "equal"
    assert compare(kinds, (("async", 3), ("local", 1)), LOSS, "samples").verdict == "reversed"


def test_words_say_what_the_curves_do(study):
    said = list(sentences(by_kind(read_study(study))))
    assert said[0] == (
        "At equal epochs, 3 workers: the published ordering of training losses, sync < local < "
        "async, holds in all 3 seeds."
    )
    assert said[1] == (
        "At equal samples, 3 workers: the published ordering of training losses, sync < local < "
        "async, does not hold as a whole: sync-3 < local is equal, local < async-3 holds."
    )
    assert said[2].startswith("At equal epochs, mode sync")
    assert said[2].endswith("3 in place of 1 change it by -22.0 points, holds.")
    assert said[3].endswith("3 in place of 1 change it by +0.0 points, equal.")
    assert said[-1].endswith("async-3 0.000 (0 of 3).")


def test_words_turn_when_the_curves_do(tmp_path):
    for seed in SEEDS:
        write_run(tmp_path, f"local-1-{seed}", falling(0.002))
        slower = falling(0.0004 if seed > 1 else 0.0009)
        write_run(tmp_path, f"sync-2-{seed}", slower)
        # Learns by heart: the held-out loss rises again.
        write_run(tmp_path, f"async-2-{seed}", falling(0.003), held_out=falling(-0.001))
    said = list(sentences(by_kind(read_study(tmp_path))))
    assert "sync-2 < local is reversed, local < async-2 is reversed." in said[0]
    assert said[-1].endswith("async-2 0.060 (3 of 3).")
    page = report_study(tmp_path).files[-1].read_text()
    assert "If there were no difference, 3 seeds would agree in 25%." in page


def test_seeds_that_disagree_decide_nothing(tmp_path):
    for seed in (1, 2):
        write_run(tmp_path, f"local-1-{seed}", falling(0.002))
        write_run(tmp_path, f"sync-2-{seed}", falling(0.002 if seed == 1 else 0.0001))
        write_run(tmp_path, f"async-2-{seed}", falling(0.001))
    found = next(sentences(by_kind(read_study(tmp_path))))
    assert "sync-2 < local is undecided (1 of 2 seeds), local < async-2 holds." in found


def test_what_a_curve_does_not_reach_is_not_compared(tmp_path):
    # With one epoch of three workers the first loss stands where one worker has long ended.
    for name in ("local-1-1", "async-3-1", "sync-3-1", "sync-1-1"):
        write_run(tmp_path, name, falling(0.002))
        table = (tmp_path / RUNS / name / LOG).read_text().splitlines(keepends=True)
        (tmp_path / RUNS / name / LOG).write_text("".join(table[:3]))
    said = list(sentences(by_kind(read_study(tmp_path))))
    assert "sync-3 < local is out of reach" in said[1]
    assert said[3].endswith("3 in place of 1 are out of reach.")
    assert "| out of reach |" in report_study(tmp_path).files[-1].read_text()


def test_tables_give_means_and_spreads(study):
    page = report_study(study).files[-1].read_text()
    # Seeds lie 0.01 apart; local after 6 epochs of 10 samples: 0.9 + 0.02 - 0.002 * 60 and 55.
    assert "| local | 1 | 60 | 12 | 0.810 ± 0.010 | 0.800 ± 0.010 | 0.200 ± 0.010 |" in page
    # And sync-3 at 60 samples: after a third of the changes.
    assert "| sync | 3 | 20 | 4 | 0.810 ± 0.010 | 0.800 ± 0.010 | 0.200 ± 0.010 |" in page
    assert "| sync-3 < local | -0.220 ± 0.000 holds | +0.000 ± 0.000 equal |" in page
    assert "the same samples have chosen it and judge it" in page


def test_wrong_words_are_answered_with_the_right_ones(tmp_path):
    def call(*words):
        return CliRunner().invoke(app, ["study", "modes", "data", str(tmp_path), *words])

    for words, expected in (
        (["--modes=both"], "expected some of local, mirrored, sync, async"),
        (["--workers=1,x"], "--workers '1,x': expected whole numbers of at least 1"),
        (["--set=training.patience=3"], "leave it 0 in a study"),
    ):
        said = call(*words)
        assert said.exit_code == 2, said.output
        assert expected in said.stderr.replace("\n", " ")
    assert call("--plot-only").exit_code == 3


@pytest.mark.slow
@pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed")
def test_a_study_trains_what_is_missing_and_nothing_twice(tmp_path):
    data, folder = tmp_path / "data", tmp_path / "study"
    write_zarr(str(data), *voxels())
    small = [
        f"--set={each}"
        for each in (
            "training.network.layers=2", "training.network.features_root=2",
            "training.patch_px=[1,32,32]", "training.held_out=2", "training.epochs=2",
            "training.steps_per_epoch=2", "data.kept_apart=0.25",
        )
    ]  # fmt: skip

    def call(*words):
        words = ["study", "modes", str(data), str(folder), "--seeds=4", *words, "--json", *small]
        return CliRunner().invoke(app, words)

    said = call("--modes=local")
    assert said.exit_code == 0, said.output
    first = (folder / RUNS / "local-1-4" / LOG).read_bytes()
    said = call("--modes=local,sync", "--workers=2")
    assert said.exit_code == 0, said.output
    assert json.loads(said.stdout)["finished"] == ["local-1-4", "sync-2-4"]
    assert (folder / RUNS / "local-1-4" / LOG).read_bytes() == first
    done = json.loads((folder / RUNS / "sync-2-4" / DONE).read_text())
    assert 0 <= done["apart"]["dice"] <= 1
    assert 0 < done["apart"]["loss"] < 3
    local, two = read_study(folder)
    assert list(local.values["samples"]) == [0, 2, 4]
    assert list(two.values["samples"]) == [0, 4, 8]
    assert "Dice on sections kept apart" in (folder / "study.md").read_text()
    other = call("--modes=local", "--set=training.loss=dice")
    assert other.exit_code == 2
    assert 'training.loss="cross_entropy"' in other.stderr.replace("\n", " ")
