"""The stages slab by slab: the units are shared out, and the run root is that of one driver."""

import os
import signal
from dataclasses import replace

import pytest

from alignment.blockwise import local_client
from alignment.commands.sample import write_phantom
from alignment.driving import slabdriver
from alignment.driving.slabs import slabs_of, state_name
from alignment.driving.states import stage_states
from alignment.phantom import PhantomConfig
from alignment.runs import load, prepare
from alignment.stages import ORDER, run_stage
from alignment.stages.order import WHOLE
from alignment.stages.runner import noted_phases
from storage import ledger
from storage.commit import manifest
from storage.commit.verify import verify_run
from storage.journal import Journal

CONFIG = {
    "volume": {
        "slab_sections": 2,
        "aligned_shard": [3, 128, 128],
        "aligned_chunk": [3, 64, 64],
        "section_chunk_px": 64,
        "section_shard_px": 128,
    },
    "match": {"retry_neighbours": 3},
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Eight sections in slabs of 3, 3 and 2, the blank one at a border, and a fold."""
    uri = (tmp_path_factory.mktemp("source") / "raw.zarr").as_uri()
    defects = {"fold_section": 5, "blank_section": 3, "corner_section": None}
    write_phantom(uri, PhantomConfig(sections=8, height=256, width=256, seed=3, **defects))
    return uri


@pytest.fixture(scope="module")
def at_once(source, cluster, tmp_path_factory):
    run_uri = prepare(source, tmp_path_factory.mktemp("once").as_uri(), CONFIG)
    for stage in ORDER:
        run_stage(stage, run_uri, cluster)
    return run_uri


@pytest.mark.parametrize("stage", [stage for stage in ORDER if stage not in WHOLE])
def test_the_slabs_share_out_the_units_of_the_local_phases(aligned_run, stage):
    run = load(aligned_run)
    whole = {
        phase.name: sorted(unit.label for unit in phase.units)
        for phase in noted_phases(stage, run, Journal())
        if phase.local
    }
    shared: dict[str, list[str]] = {}
    for sections in (range(4), range(4, 8)):
        own = replace(run, slab=sections)
        for phase in slabdriver.own_phases(noted_phases(stage, own, Journal()), own):
            assert all(unit.z in sections for unit in phase.units)
            shared.setdefault(phase.name, []).extend(unit.label for unit in phase.units)
    # A phase without units, such as of retries of which there are none, may be left out.
    assert {name: sorted(units) for name, units in shared.items()} == whole
    assert whole or stage == "pyramid"


@pytest.mark.slow
def test_slabs_give_the_root_of_one_driver_though_a_driver_is_killed(at_once, source, tmp_path):
    run_uri = prepare(source, tmp_path.as_uri(), CONFIG)
    run = load(run_uri)
    slabs = slabs_of(run.shape[0], run.config.volume.slab_depth)
    assert [slab.label for slab in slabs] == ["0-2", "3-5", "6-7"]
    with local_client(2) as client:
        for stage in ORDER:
            if stage in WHOLE:
                run_stage(stage, run_uri, client)
                continue
            drivers = [
                client.submit(slabdriver.run_slab, stage, run_uri, slab.label, pure=False)
                for slab in slabs
            ]
            if stage == "masks":
                kill_one_that_drives(client, run_uri, drivers)
            client.gather(drivers)
            states = [ledger.read_state(run_uri, state_name(stage, slab.label)) for slab in slabs]
            assert [state.status for state in states] == ["done"] * 3, states
            assert ledger.read_state(run_uri, stage).finisher in {s.stage for s in states}
    assert manifest.run_root(run_uri) == manifest.run_root(at_once)
    assert verify_run(run_uri, full=True).problems == ()
    for one, many in zip(stage_states(at_once), stage_states(run_uri), strict=True):
        assert (many.stage, many.status) == (one.stage, "done")
        assert many.blocks_done == one.blocks_done
        assert many.bytes_written == one.bytes_written or one.stage in ("masks", "qc")


def kill_one_that_drives(client, run_uri, drivers):
    """Kill the worker of one of the drivers, whatever else it holds, once a slab is done."""
    while not any(
        ledger.read_state(run_uri, name).units_done
        for name in (state_name("masks", label) for label in ("0-2", "3-5", "6-7"))
    ):
        pass
    busy = {key for keys in client.processing().values() for key in keys}
    left = [driver.key for driver in drivers if driver.key in busy]
    pids = client.run(os.getpid)
    holders = [address for address, keys in client.processing().items() if set(keys) & set(left)]
    os.kill(pids[holders[0]] if holders else min(pids.values()), signal.SIGKILL)
