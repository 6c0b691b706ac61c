"""The price of features by a network: what it computes, and what the plan makes of it."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.config import parse_config
from alignment.errors import DataError
from alignment.planning.counts import count_stages
from alignment.planning.forecast import plan_shape
from alignment.planning.networks import computed_px, gflop_per_mpx, tile_bytes, tile_shape
from alignment.planning.prices import read_prices
from alignment.planning.rates import (
    Sample,
    calibrated,
    core_s,
    fit_stage,
    read_rates,
    shipped_rates,
    write_rates,
)
from alignment.planning.stack import Stack
from alignment.planning.work import network_gflop
from inference.config import NCCNetConfig
from inference.model_file import encode
from inference.nccnet import halo_px, weight_shapes
from inference.tiling import predict_tiled
from storage.errors import MissingError
from tests.inference.networks import drawn

SHAPE = (24, 1024, 1024)


@pytest.fixture
def by_network(tmp_path):
    """Settings that name a small network of drawn weights."""
    path = tmp_path / "net.safetensors"
    path.write_bytes(encode(drawn((4, 8))))
    return {"features": {"kind": "nccnet", "model": path.as_uri()}}


def features(config, rates=None, shape=SHAPE):
    plan, stack = plan_shape(
        shape, parse_config(config), rates=rates or shipped_rates(), prices=read_prices()
    )
    return next(stage for stage in plan.stages if stage.stage == "features"), stack, plan


@settings(max_examples=20, deadline=None)
@given(
    st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.integers(1, 40),
    st.sampled_from([(2,), (2, 3), (2, 3, 4)]),
)
def test_pixels_are_those_that_the_network_is_given(size, tile_px, widths):
    config, given_shapes = NCCNetConfig(widths=widths), []

    def predict(tile):
        given_shapes.append(tile.shape)
        return np.zeros((*tile.shape, 1), np.float32)

    image = np.zeros(size, np.float32)
    predict_tiled(predict, image, halo=halo_px(config), step_px=config.step_px, tile_px=tile_px)
    assert set(given_shapes) == {tile_shape(size, config, tile_px=tile_px)}
    seen_px = sum(np.prod(shape) for shape in given_shapes)
    assert computed_px(size, config, tile_px=tile_px) == seen_px


@pytest.mark.parametrize("widths", [(5,), (3, 4, 50)])
def test_operations_are_two_for_each_weight_and_pixel_of_its_level(widths):
    config = NCCNetConfig(widths=widths, channels=2)
    operations = 0.0
    for name, shape in weight_shapes(config).items():
        if name.endswith("kernel"):
            level = int(name.partition("_")[0][-1]) if "_" in name else 0
            *kernel, channels = shape
            operations += 2 * np.prod(kernel) * (-(-channels // 16) * 16) / 4**level
    assert gflop_per_mpx(config) == pytest.approx(operations / 1e3)


def test_time_is_that_of_the_operations(by_network):
    rates = shipped_rates()
    half = replace(rates.network, gflop_per_s=rates.network.gflop_per_s / 2)
    twice = replace(rates, network=half)
    (once, stack, _), (slow, _, _) = features(by_network), features(by_network, twice)
    added = network_gflop(stack) / rates.network.gflop_per_s
    assert slow.core_s - once.core_s == pytest.approx(added, abs=0.02)
    config, mpx = NCCNetConfig(widths=(4, 8)), 0.0
    for mip in stack.config.match.mips:
        mpx += SHAPE[0] * computed_px((1024 >> mip, 1024 >> mip), config) / 1e6
    assert network_gflop(stack) == pytest.approx(mpx * gflop_per_mpx(config))
    assert once.core_s > added
    assert network_gflop(features({})[1]) == 0


def test_the_plan_says_what_it_assumed_of_the_network(by_network):
    (_, _, plan), (_, _, other) = features(by_network), features({})
    each = f"{gflop_per_mpx(NCCNetConfig(widths=(4, 8))):,.1f} GFLOP a Mpx"
    told = [line for line in plan.assumptions if "network of widths 4-8" in line]
    assert len(told) == 1
    assert each in told[0]
    assert shipped_rates().network.measured in told[0]
    assert not any("network" in line for line in other.assumptions)


def test_memory_is_that_of_a_tile_of_these_widths(by_network):
    (ours, _, _), (band, _, _) = features(by_network), features({})
    assert ours.peak_bytes > band.peak_bytes
    small, wide = (NCCNetConfig(widths=(n, 2 * n)) for n in (8, 64))
    added = 4 * 4 * 48 * np.prod(tile_shape((4096, 4096), small))
    assert tile_bytes((4096, 4096), wide) - tile_bytes((4096, 4096), small) == added
    assert tile_bytes((4096, 4096), small) == tile_bytes((9000, 9000), small)
    assert tile_bytes((256, 256), small) < tile_bytes((4096, 4096), small)


def test_a_network_that_cannot_be_read_is_an_error_as_in_a_run(tmp_path):
    path = tmp_path / "net.safetensors"
    config = {"features": {"kind": "nccnet", "model": path.as_uri()}}
    with pytest.raises(MissingError):
        features(config)
    path.write_bytes(encode(drawn((3,), channels=2)))
    with pytest.raises(DataError, match="makes 2 images, and matching takes one"):
        features(config)


def test_a_run_by_a_network_scales_its_rate_and_leaves_the_band_pass_alone(by_network):
    rates, (stage, stack, _) = shipped_rates(), features(by_network)
    count = next(c for c in count_stages(stack) if c.stage == "features")
    sample = Sample(stack, "features", 3 * stage.core_s, 10**9)
    found = calibrated(rates, [sample], "today, here")
    assert found.stages == rates.stages
    assert found.network.measured == "today, here"
    assert found.network.gflop_per_s < rates.network.gflop_per_s / 3
    assert core_s("features", stack, count, found) == pytest.approx(3 * stage.core_s, abs=0.02)
    band = Stack(SHAPE, parse_config({}))
    after = calibrated(rates, [Sample(band, "features", 9.0, 10**9)], "today, here")
    assert after.network == rates.network
    assert after.stages["features"] != rates.stages["features"]
    with pytest.raises(ValueError, match="a run by a network"):
        fit_stage([sample], 2.0)


def test_rates_that_were_kept_without_networks_are_still_read(tmp_path):
    path = tmp_path / "rates.json"
    values = asdict(shipped_rates())
    del values["network"]
    path.write_text(json.dumps(values))
    assert read_rates(path) == shipped_rates()
    own = replace(shipped_rates(), network=replace(shipped_rates().network, gflop_per_s=7.0))
    write_rates(path, own)
    assert read_rates(path) == own
