import numpy as np
import pytest

from alignment.micrograph import Micrograph, seen_through
from alignment.neuropil import Neuropil


def membrane(gap, half_width=2.0):
    """A membrane cut at right angles, by the definition: a box with logistic edges."""
    edge = 0.85
    return 0.5 * (np.tanh((gap + half_width) / edge) - np.tanh((gap - half_width) / edge))


@pytest.mark.parametrize("tilt", [0.6, 3.0, 9.0])
def test_a_tilted_membrane_is_the_mean_over_the_section(tilt):
    gap = np.linspace(-14, 14, 113, dtype=np.float32)
    seen = seen_through(gap, np.full_like(gap, tilt), np.full_like(gap, 2))
    depth = np.linspace(-tilt, tilt, 2001)
    expected = membrane(gap[:, None] + depth).mean(axis=1)
    np.testing.assert_allclose(seen, expected, atol=2e-3)
    # It gets broader and paler, but covers up as much in all.
    assert np.trapezoid(seen, gap) == pytest.approx(4, rel=0.02)


def test_membranes_are_dark_and_cytoplasm_is_light():
    neuropil = Neuropil((0, 0, 256, 256), seed=1)
    light = Micrograph(neuropil).render(0, (0, 0, 256, 256))
    cut = neuropil.cut(neuropil.slab(0), np.arange(256), np.arange(256))
    upright = cut.tilt < 1.5
    on, off = light[upright & (cut.gap < 1)], light[upright & (cut.gap > 8)]
    assert on.mean() < 75
    assert off.mean() > 120
    assert light.min() >= 0
    assert light.max() < 255
