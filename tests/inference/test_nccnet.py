from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from inference.config import NCCNetConfig
from inference.errors import ModelError, ShapeError
from inference.model import Network
from inference.nccnet import check_sides, halo_px, layers, weight_shapes
from tests.inference.networks import drawn


@pytest.mark.parametrize(
    ("widths", "number"),
    [((8, 16, 32, 64), 292_281), ((16, 32, 64, 128), 1_167_089), ((32, 64, 128, 256), 4_664_289)],
)
def test_the_published_networks_have_their_numbers_of_weights(widths, number):
    shapes = weight_shapes(NCCNetConfig(widths=widths))
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == number


class _Steps:
    """Reads the description as text."""

    def scale(self, x, zero, unit):
        return f"({x} - {zero:g}) / {unit:g}"

    def conv(self, x, name, side_px, channels):
        return f"{name}[{side_px}, {channels}]"

    def pool(self, x):
        return f"pool {x}"

    def enlarge(self, x):
        return f"enlarge {x}"

    def add(self, x, y):
        return f"{x} + {y}"


def test_the_order_of_the_layers():
    said = layers("x", NCCNetConfig(widths=(3, 4), channels=2), _Steps())
    assert said == ["down1_5[3, 4]", "up0_5[3, 3]", "output[1, 2]"]
    assert list(weight_shapes(NCCNetConfig(widths=(3, 4), channels=2)).items())[::2] == [
        ("down0_1/kernel", (3, 3, 1, 3)), ("down0_2/kernel", (3, 3, 3, 3)),
        ("down0_3/kernel", (3, 3, 3, 3)), ("down0_4/kernel", (3, 3, 3, 3)),
        ("down0_5/kernel", (3, 3, 3, 3)), ("down1_1/kernel", (3, 3, 3, 4)),
        ("down1_2/kernel", (3, 3, 4, 4)), ("down1_3/kernel", (3, 3, 4, 4)),
        ("down1_4/kernel", (3, 3, 4, 4)), ("down1_5/kernel", (3, 3, 4, 4)),
        ("up0_resized/kernel", (2, 2, 4, 3)), ("up0_1/kernel", (3, 3, 3, 3)),
        ("up0_2/kernel", (3, 3, 3, 3)), ("up0_3/kernel", (3, 3, 3, 3)),
        ("up0_4/kernel", (3, 3, 3, 3)), ("up0_5/kernel", (3, 3, 3, 3)),
        ("output/kernel", (1, 1, 3, 2)),
    ]  # fmt: skip


def test_sides_must_be_multiples_of_the_coarsest_pixel():
    check_sides((16, 24), NCCNetConfig())
    with pytest.raises(ShapeError, match="multiples of 8 px, got 16 x 20"):
        check_sides((16, 20), NCCNetConfig())


def test_settings_out_of_range_are_refused():
    for wrong in ({"channels": 9}, {"widths": ()}, {"grey_unit": 0}, {"width": (8,)}):
        with pytest.raises(ValidationError):
            NCCNetConfig.model_validate(wrong)


def test_weights_of_another_network_are_refused():
    network = drawn((3, 4))
    with pytest.raises(ModelError, match=r"11 of 34 .* down1_1/bias should .*\(5,\), got \(4,\)"):
        Network(NCCNetConfig(widths=(3, 5)), network.weights)
    weights = dict(network.weights)
    weights["output/bias"] = np.full(1, np.nan, np.float32)
    with pytest.raises(ModelError, match="output/bias are not all finite"):
        Network(network.config, weights)


@pytest.mark.parametrize("levels", [1, 2, 3, 4])
def test_the_halo_grows_with_the_levels(levels):
    """Each level adds its ten convolutions, at its pixel size, and the resizing looks ahead."""
    before, after = halo_px(NCCNetConfig(widths=(2,) * levels))
    assert before < after or levels == 1
    assert 5 * (2**levels - 1) <= before <= 10 * 2 ** (levels - 1) + 10 * (2 ** (levels - 1) - 1)
