"""Tissue that the nearest sections do not show is tied to a farther one, and only that tissue."""

import os
import signal

import numpy as np
import pytest

from alignment.blockwise import local_client
from alignment.commands.convert import as_rows, write_volume
from alignment.config import MatchConfig
from alignment.holes import MARGIN_NODES
from alignment.phantom import Phantom, PhantomConfig
from alignment.runs import DEFAULT_RESOLUTION_NM, load, prepare
from alignment.stages import ORDER, inputs, run_stage
from storage import ledger
from storage.commit import records
from storage.commit.verify import verify_run
from storage.store import read_json
from storage.volume import open_array

from .conftest import CONFIG

LOST = np.s_[130:310, 120:300]  # of two sections, 2 and 3
ROUNDS = len(MatchConfig().refine)
STAGES = ORDER[: ORDER.index("filter") + 1]


@pytest.fixture(scope="module")
def torn(tmp_path_factory):
    """Six sections of 416 x 416 px, little misaligned; two in a row have lost the same tissue."""
    config = PhantomConfig(
        sections=6, height=416, width=416, seed=4, fold_section=None, blank_section=None
    )
    phantom, images = Phantom(config), []
    for z in range(config.sections):
        image = np.clip(phantom.tissue(z), 1, 254).astype(np.uint8)
        if z in (2, 3):
            image[LOST] = 0
        images.append(as_rows(image))
    uri = (tmp_path_factory.mktemp("torn") / "raw.zarr").as_uri()
    write_volume(uri, (6, 416, 416), DEFAULT_RESOLUTION_NM, iter(images), None)
    return uri


@pytest.fixture(scope="module")
def retried(torn, cluster, tmp_path_factory):
    run_uri = prepare(torn, (tmp_path_factory.mktemp("retried") / "out.zarr").as_uri(), CONFIG)
    for stage in ORDER:
        run_stage(stage, run_uri, cluster)
    return run_uri


def known(run_uri, path, z):
    return np.isfinite(inputs.read_row(open_array(run_uri, path), z)[0])


def test_the_section_above_the_hole_is_retried_and_only_there(retried):
    holes = records.read_records(retried, "match", "holes3")
    assert list(holes) == ["z000003", "z000004", "z000005"]
    assert holes["z000004"]["untied"] >= 20
    # Section 5 sees section 4 everywhere, section 3 has lost the tissue itself.
    assert holes["z000005"]["boxes"] == []
    assert holes["z000003"]["untied"] < 8
    matched, grid = known(retried, "matches/3", 4), open_array(retried, "matches/3").shape[2:]
    ((*block, i0, j0, i1, j1),) = holes["z000004"]["boxes"]
    assert block == [0, 0]
    assert MARGIN_NODES >= 5 - i0 >= 0
    assert (i1 - i0) * (j1 - j0) < np.prod(grid)
    outside = np.ones(grid, bool)
    outside[i0:i1, j0:j1] = False
    assert not matched[outside].any()


def test_the_retry_ties_what_was_untied(retried):
    tied = known(retried, "trusted/1", 4) | known(retried, "trusted/2", 4)
    retry = known(retried, "trusted/3", 4)
    hole = np.zeros(tied.shape, bool)
    hole[5:10, 5:9] = True  # nodes well inside
    assert not tied[hole].any()
    assert retry[hole].mean() >= 0.8
    assert known(retried, "matches/3", 4).sum() < tied.size
    # It is the same tissue, not displaced at all.
    shift = inputs.read_row(open_array(retried, "trusted/3"), 4)[:2]
    assert np.nanmedian(np.hypot(*shift)) < 3


def test_the_mesh_and_the_report_use_the_retried_matches(retried):
    assert (4, 3) in inputs.trusted_pairs(load(retried))
    assert np.isfinite(inputs.read_row(open_array(retried, "residuals/3"), 4)[5:9, 5:9]).any()
    figures = read_json(retried + "/qc.json")["matches"]
    last = f"round{ROUNDS}", f"retry3_round{ROUNDS}"
    assert figures["measured"] == sum(
        record["matched"]
        for phase in last
        for record in records.read_records(retried, "match", phase).values()
    )
    judged = records.read_records(retried, "filter", "sections").values()
    trusted = sum(pair["trusted"] for record in judged for pair in record["pairs"].values())
    assert figures["trusted"] == trusted
    assert figures["measured"] == trusted + sum(figures["rejected"].values())


@pytest.mark.slow
def test_without_retries_nothing_farther_is_matched(torn, cluster, tmp_path):
    run_uri = prepare(torn, tmp_path.as_uri(), {**CONFIG, "match": {"retry_neighbours": 0}})
    for stage in STAGES:
        run_stage(stage, run_uri, cluster)
    assert {d for _, d in inputs.trusted_pairs(load(run_uri))} == {1, 2}
    assert records.read_records(run_uri, "match", "holes3") == {}


@pytest.mark.slow
def test_a_worker_killed_in_a_retry_changes_nothing(torn, retried, tmp_path):
    run_uri = prepare(torn, tmp_path.as_uri(), CONFIG)
    killed = []
    with local_client(2) as client:

        def kill_once(state):
            if state.phase.startswith("retry3") and not killed:
                killed.append(min(client.run(os.getpid).values()))
                os.kill(killed[0], signal.SIGKILL)

        for stage in STAGES:
            run_stage(stage, run_uri, client, tell=kill_once if stage == "match" else None)
    assert killed
    for stage, phases in (
        ("match", ("holes3", f"retry3_round{ROUNDS}")),
        ("filter", ("sections",)),
    ):
        for phase in phases:
            expected = records.read_records(retried, stage, phase)
            assert records.read_records(run_uri, stage, phase) == expected
            assert expected
    assert verify_run(run_uri, full=True).problems == ()
    before = ledger.read_state(run_uri, "match").blocks_done
    with local_client(1) as client:
        assert run_stage("match", run_uri, client) == before
