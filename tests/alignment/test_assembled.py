import numpy as np
import pytest

from alignment.config import RelaxConfig
from alignment.relax import PairMatches
from tests.assembled import Assembled
from tests.known_fields import KnownFields

SIDE, SPACING = 160, 32
GRID = (4, 6, 6)
CONFIG = RelaxConfig(huber_px=2.0, anchor=0.01, stiffness=1.5, node_spacing_px=SPACING)


def energy(**more):
    pairs = [p for d in (1, 2) for p in KnownFields(4).matches(SIDE, SPACING, d=d, wrong=0.2)]
    random = np.random.default_rng(0)
    described = []
    for pair in pairs:
        roots = random.normal(size=(*pair.displacement.shape[1:], 2, 2))
        yy, yx, xx = np.einsum("yxik,yxjk->ijyx", roots, roots)[[0, 0, 1], [0, 1, 1]]
        weight = random.uniform(0, 1, pair.displacement.shape[1:]).astype(np.float32)
        covariance = np.stack([yy, yx, xx]).astype(np.float32)
        described.append(PairMatches(pair.z, pair.d, pair.displacement, covariance, weight))
    return Assembled(described, GRID, SPACING, SPACING, CONFIG, **more)


def test_the_gradient_is_that_of_the_energy():
    whole = energy(stiffness_map=np.random.default_rng(1).uniform(0.1, 2, (4, 5, 5)))
    random = np.random.default_rng(0)
    u, step = random.normal(scale=5, size=(2, whole.size))
    slope = (whole.value(u + 1e-5 * step) - whole.value(u - 1e-5 * step)) / 2e-5
    robust = whole.robust(u)
    gradient = whole.matrix(robust) @ u - whole.right(robust)
    assert slope == pytest.approx(step @ gradient, rel=1e-5)


def test_nothing_near_the_direct_minimum_has_less_energy():
    whole = energy()
    u = whole.minimise_direct()
    random = np.random.default_rng(0)
    steps = random.normal(scale=0.01, size=(20, whole.size))
    assert all(whole.value(u + step) > whole.value(u) for step in steps)


def test_held_sections_stay_and_the_others_settle_around_them():
    free = np.array([False, True, True, True])
    whole = energy(free=free)
    held = np.random.default_rng(0).normal(scale=3, size=whole.size)
    u = whole.minimise_direct(held)
    first = 2 * GRID[1] * GRID[2]
    np.testing.assert_array_equal(u[:first], held[:first])
    robust = whole.robust(u)
    gradient = whole.matrix(robust) @ u - whole.right(robust)
    assert np.abs(gradient[first:]).max() < 1e-4
    assert np.abs(gradient[:first]).max() > 0.1
