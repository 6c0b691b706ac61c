"""The price of a network that marks defects: what it computes, and what the plan makes of it."""

from dataclasses import replace

import numpy as np
import pytest

from alignment.config import parse_config
from alignment.errors import ConfigError
from alignment.planning.counts import count_stages
from alignment.planning.forecast import plan_shape
from alignment.planning.prices import read_prices
from alignment.planning.rates import Sample, calibrated, core_s, fit_stage, shipped_rates
from alignment.planning.stack import Stack
from alignment.planning.work import marking_gflop
from alignment.stages.marked import MARGIN, mark
from inference import native
from inference.backends.files import on_engine
from storage.errors import MissingError
from tests.networks import model_file, saved

pytest.importorskip("tensorflow", reason="the extra `train` is not installed")
pytestmark = pytest.mark.skipif(native.widest() is None, reason="the kernels are not built")

SHAPE = (60, 1500, 1400)


@pytest.fixture(scope="module")
def network():
    """The file of two convolutions: 2 (9 + 1) 4 operations a pixel."""
    import keras

    image = keras.Input((None, None, 1))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(image)
    return saved(keras.Model(image, keras.layers.Conv2D(1, 1, activation="sigmoid")(x)))


@pytest.fixture
def settings(network, tmp_path):
    path = tmp_path / "network.keras"
    path.write_bytes(network)
    return {"masks": {"network": path.as_uri(), "mip": 1}}


def masks(values):
    plan, stack = plan_shape(
        SHAPE, parse_config(values), rates=shipped_rates(), prices=read_prices()
    )
    return next(stage for stage in plan.stages if stage.stage == "masks"), stack, plan


class Noting:
    """A network that counts the pixels that it is given."""

    def __init__(self, network):
        self._network, self.pixels = network, 0

    def __getattr__(self, name):
        return getattr(self._network, name)

    def __call__(self, patches):
        self.pixels += patches.size
        return self._network(patches)


def test_operations_are_those_of_the_patches_that_it_is_given(network, settings):
    _, stack, _ = masks(settings)
    noting = Noting(on_engine(network, shrink=MARGIN))
    mark(noting, np.full((750, 700), 7, np.uint8), 0.5)
    # The second convolution leaves the margins out.
    assert 0.55 < stack.marking.gflop / (80 * noting.pixels / 1e9) < 1
    assert marking_gflop(stack) == pytest.approx(60 * stack.marking.gflop)


def test_a_plan_counts_it_and_says_so(settings):
    rates, (stage, stack, plan) = shipped_rates(), masks(settings)
    plain, _, without = masks({"masks": {"mip": 1}})
    added = marking_gflop(stack) / rates.network.gflop_per_s
    assert added > 0.01
    assert stage.core_s == pytest.approx(plain.core_s + added, abs=0.011)
    grown = rates.stages["masks"].memory_factor * stack.marking.working_bytes
    assert stage.peak_bytes == pytest.approx(plain.peak_bytes + grown, abs=2)
    assert "the network that marks defects" in "\n".join(plan.assumptions)
    assert "the network that marks defects" not in "\n".join(without.assumptions)


def test_a_run_with_it_scales_the_rest_of_the_stage_only(settings):
    rates, (stage, stack, _) = shipped_rates(), masks(settings)
    count = next(c for c in count_stages(stack) if c.stage == "masks")
    sample = Sample(stack, "masks", 3 * stage.core_s, 10**9)
    found = calibrated(rates, [sample], "today, here")
    assert found.network == rates.network
    assert core_s("masks", stack, count, found) == pytest.approx(3 * stage.core_s, rel=1e-6)
    with pytest.raises(ValueError, match="those without a network"):
        fit_stage([sample], 2.0)
    assert fit_stage([replace(sample, stack=Stack(SHAPE, parse_config({})))], 2.0).work_s >= 0


def test_a_network_that_cannot_mark_is_an_error_as_in_a_run(tmp_path):
    path = tmp_path / "network.keras"
    values = {"masks": {"network": path.as_uri()}}
    with pytest.raises(MissingError):
        masks(values)
    path.write_bytes(model_file(size=(12, 40, 40)))
    with pytest.raises(ConfigError, match=r"masks.network: .* takes patches of 12 sections"):
        masks(values)
