"""A run that is finished: what it took against the plan, and the rates it gives."""

import pytest

from alignment.commands.plan import calibrate
from alignment.planning.outcome import outcomes, seen, taken
from alignment.planning.plans import plan_stages
from alignment.planning.rates import read_rates, shipped_rates
from alignment.runs import load, prepare
from alignment.stages import run_stage
from inference.model_file import encode
from storage.ledger import read_state
from storage.store import join, read_json
from tests.inference.networks import drawn
from tests.networks import saved
from tests.pipeline.conftest import CONFIG


def test_rates_of_a_run_foretell_its_time(aligned_run, tmp_path):
    path = calibrate(aligned_run, tmp_path / "kept" / "rates.json")
    rates, run = read_rates(path), load(aligned_run)
    planned = {stage.stage: stage.core_s for stage in plan_stages(seen(run), rates, {})}
    samples = taken(run)
    assert {"ingest", "match", "render"} <= {sample.stage for sample in samples}
    for sample in samples:
        assert planned[sample.stage] == pytest.approx(sample.busy_s, rel=0.02, abs=0.02)
    assert rates.stages["match"].memory_factor == shipped_rates().stages["match"].memory_factor
    assert load(aligned_run).key in rates.measured


def test_the_report_has_what_came_beside_what_was_planned(aligned_run):
    stages = {s["name"]: s for s in read_json(join(aligned_run, "qc.json"))["stages"]}
    for name in ("ingest", "masks", "features"):
        planned, actual = stages[name]["planned"], stages[name]["actual"]
        assert actual["core_s"] > 0
        assert actual["peak_bytes"] > 50e6
        # One section is blank, which no plan can know; it is ingested like all others.
        off = 0 if name == "ingest" else 0.15
        for what in ("units", "objects"):
            assert actual[what] == pytest.approx(planned[what], rel=off)
    assert stages["qc"]["actual"]["units"] is None, "it is not finished when it writes the report"


def test_masks_by_a_network_are_planned_with_it_and_not_without(phantom, cluster, tmp_path):
    keras = pytest.importorskip("keras", reason="the extra `train` is not installed")
    image = keras.Input((None, None, 1))
    found = keras.layers.Conv2D(1, 3, padding="same", activation="sigmoid")(image)
    path = tmp_path / "network.keras"
    path.write_bytes(saved(keras.Model(image, found)))
    config = {**CONFIG, "masks": {**CONFIG.get("masks", {}), "network": path.as_uri()}}
    run_uri = prepare(phantom, (tmp_path / "out.zarr").as_uri(), config)
    for stage in ("ingest", "masks"):
        run_stage(stage, run_uri, cluster)
    run, state = load(run_uri), read_state(run_uri, "masks")
    planned, came = outcomes(run, [state], shipped_rates())["masks"]
    assert planned.core_s > 0
    assert planned.peak_bytes > 0
    assert came.core_s > 0
    path.unlink()
    gone, _ = outcomes(run, [state], shipped_rates())["masks"]
    assert (gone.units, gone.core_s, gone.peak_bytes) == (planned.units, None, None)


@pytest.mark.slow
def test_features_by_a_network_take_what_was_planned(phantom, cluster, tmp_path):
    network = drawn((8, 16, 32, 64))
    path = tmp_path / "net.safetensors"
    path.write_bytes(encode(network))
    config = {**CONFIG, "features": {"kind": "nccnet", "model": path.as_uri()}}
    run_uri = prepare(phantom, (tmp_path / "out.zarr").as_uri(), config)
    for stage in ("ingest", "masks", "features"):
        run_stage(stage, run_uri, cluster)
    run, state = load(run_uri), read_state(run_uri, "features")
    planned, came = outcomes(run, [state], shipped_rates())["features"]
    assert came.core_s / 2 < planned.core_s < came.core_s * 2
    path.unlink()
    gone, _ = outcomes(run, [state], shipped_rates())["features"]
    assert (gone.units, gone.core_s, gone.peak_bytes) == (planned.units, None, None)
