"""Plans from shape and settings alone: prices, slabs, sizes, rates, refusals."""

import numpy as np
import pytest

from alignment.config import parse_config
from alignment.errors import ConfigError
from alignment.planning.counts import count_stages
from alignment.planning.forecast import plan_shape
from alignment.planning.prices import read_prices
from alignment.planning.rates import Sample, fit_stage, read_rates, shipped_rates, write_rates
from alignment.planning.reads import read_by
from alignment.planning.refusals import Limits, PlanRefusedError, check
from alignment.planning.samples import sample_stored
from alignment.planning.stack import Stack
from alignment.planning.work import memory_of, work_of

PRICES = """
currency: EUR
as_of: today
put_per_1000: 1
get_per_1000: 2
storage_gb_month: 3
core_hour: 4
"""


def planned(shape, settings=None, prices=None, **options):
    config = parse_config(settings or {})
    found = prices or read_prices()
    return plan_shape(shape, config, rates=shipped_rates(), prices=found, **options)


class Noise:
    """A source that does not compress, or one that is black."""

    shape = (4, 300, 700)

    def __init__(self, top):
        self.top = top

    def read_rows(self, z, y0, y1):
        random = np.random.default_rng(z)
        return random.integers(0, self.top, (y1 - y0, self.shape[2]), np.uint8)


def test_the_price_is_what_the_file_says(tmp_path):
    path = tmp_path / "prices.yaml"
    path.write_text(PRICES)
    plan, _ = planned((4, 512, 512), prices=read_prices(path))
    puts = sum(stage.puts for stage in plan.stages)
    gets = sum(stage.gets for stage in plan.stages)
    assert plan.cost["cores"] == pytest.approx(4 * plan.core_hours)
    assert plan.cost["puts"] + plan.cost["gets"] == pytest.approx((puts + 2 * gets) / 1000)
    assert plan.cost["storage_per_month"] == pytest.approx(3e-9 * plan.bytes_written)


@pytest.mark.parametrize("text", ["core_hour: -1", "corehour: 1", "[", PRICES + "more: 1\n"])
def test_a_file_that_holds_no_prices_is_named(tmp_path, text):
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"prices\.yaml"):
        read_prices(path)


def test_slabs_bound_the_tasks_of_a_graph():
    def tasks(slab):
        plan, _ = planned((640, 4096, 4096), {"volume": {"slab_sections": slab}})
        return {stage.stage: (stage.graphs, stage.tasks_per_graph) for stage in plan.stages}

    few, many = tasks(64), tasks(640)
    assert few["ingest"] == (10, 64)
    assert many["ingest"] == (1, 640)
    assert few["match"][1] == pytest.approx(many["match"][1] / 10, abs=1)
    assert few["masks"] == (11, 639), "all pairs are compared in one graph, after the slabs"


def test_objects_hang_on_how_the_volume_is_cut():
    def rendered(shard):
        layout = {"aligned_shard": shard, "aligned_chunk": [16, 64, 64]}
        config = parse_config({"volume": layout})
        counts = {c.stage: c for c in count_stages(Stack((64, 4000, 4000), config))}
        return counts["render"].units

    assert rendered([16, 512, 512]) == 4 * 9 * 9
    assert rendered([32, 1024, 1024]) == 2 * 5 * 5


def test_the_report_reads_the_aligned_volume_about_once():
    stack = Stack((640, 20_000, 20_000), parse_config({}))
    read = max(r.nbytes for r in read_by("qc", stack) if r.path == "aligned")
    voxels = stack.shape[0] * stack.canvas_px
    # Its halo of 320 px about 2,048, and the depth of a chunk for the section before each shard.
    assert voxels < read < 3.5 * voxels


def test_every_reason_is_told_with_its_setting():
    plan, stack = planned((7600, 187_000, 92_000))
    with pytest.raises(PlanRefusedError) as refused:
        check(plan, stack, Limits(worker_memory_gib=64, max_price=1, max_core_hours=1))
    for told in ("node_spacing_px", "qc.chunk_px", "masks.mip", "--max-price", "core-hours"):
        assert told in str(refused.value)
    small, stack = planned((24, 1024, 1024))
    check(small, stack, Limits(worker_memory_gib=2, max_price=10, max_core_hours=1))


@pytest.mark.parametrize(("top", "least", "most"), [(256, 0.95, 1.05), (1, 0.0, 0.01)])
def test_a_source_is_tried_with_the_codec(top, least, most):
    stored = sample_stored(Noise(top), parse_config({}))
    assert least <= stored["sections"] <= most
    assert least <= stored["aligned"] <= most


def test_rates_that_made_the_times_are_found_again():
    samples = []
    for side in (512, 1024, 4096):
        stack = Stack((9, side, side), parse_config({}))
        units = next(c.units for c in count_stages(stack) if c.stage == "features")
        decoded = sum(read.nbytes for read in read_by("features", stack))
        busy = 0.05 * units + 0.2 * work_of("features", stack) + 2e-9 * decoded
        peak = 2e8 + 1.5 * memory_of("features", stack)
        samples.append(Sample(stack, "features", busy, round(peak)))
    rate = fit_stage(samples, 2.0)
    assert (rate.unit_s, rate.work_s) == (pytest.approx(0.05, rel=0.02), pytest.approx(0.2))
    assert (rate.base_bytes, rate.memory_factor) == (pytest.approx(2e8, rel=0.01), 1.5)


def test_rates_are_kept_as_they_are(tmp_path):
    path = tmp_path / "new" / "rates.json"
    write_rates(path, shipped_rates())
    assert read_rates(path) == shipped_rates()
    path.write_text('{"stages": {}}')
    with pytest.raises(ConfigError, match="--calibrate"):
        read_rates(path)
