from dataclasses import replace

import numpy as np
import pytest

from alignment import native
from alignment.config import RelaxConfig
from alignment.energy import StackEnergy, Weights
from tests.assembled import Assembled
from tests.known_fields import KnownFields

SIDE, SPACING = 192, 32
GRID = (4, 7, 7)
CONFIG = RelaxConfig(huber_px=2.0, anchor=0.01, stiffness=1.5)
RANDOM = np.random.default_rng(0)
CELLS = RANDOM.uniform(0.2, 2, (4, 6, 6)).astype(np.float32)


def measured(spacing=SPACING, covariance=True):
    pairs = [p for d in (1, 2) for p in KnownFields(4).matches(SIDE, spacing, d=d, wrong=0.2)]
    random = np.random.default_rng(3)
    shape = pairs[0].displacement.shape[1:]
    root = random.normal(size=(*shape, 2, 2)) + 2 * np.eye(2)
    full = np.einsum("...ik,...jk->ij...", root, root)
    spread = np.stack([full[0, 0], full[0, 1], full[1, 1]]).astype(np.float32)
    weight = random.uniform(0.5, 2, shape).astype(np.float32)
    if covariance:
        pairs = [replace(pair, covariance=spread, weight=weight) for pair in pairs]
    return sorted(pairs, key=lambda pair: (pair.z, pair.d))


def both(spacing=SPACING, free=None, **changes):
    pairs = measured(spacing)
    energy = StackEnergy(
        [p.links(spacing) for p in pairs],
        GRID,
        spacing,
        CONFIG,
        stiffness=CONFIG.stiffness * CELLS,
        free=free,
        **changes,
    )
    return energy, Assembled(pairs, GRID, SPACING, spacing, CONFIG, CELLS, free)


def flat(u):
    """To the oracle's order of unknowns."""
    return np.moveaxis(u, 1, -1).ravel()


@pytest.mark.parametrize("spacing", [16, 32, 48])
def test_energy_gradient_and_matrix_are_those_of_the_oracle(spacing):
    energy, oracle = both(spacing)
    u = RANDOM.normal(scale=3, size=energy.shape)
    value, gradient = energy.evaluate(u, Weights.MAJORISE)
    robust = oracle.robust(flat(u))
    assert (robust < 1).any()
    assert (robust == 1).any()
    assert value.total == pytest.approx(oracle.value(flat(u)), rel=1e-6)
    assert min(value.matches, value.elastic, value.anchor) > 0
    expected = oracle.matrix(robust) @ flat(u) - oracle.right(robust)
    np.testing.assert_allclose(flat(gradient), expected, atol=1e-5 * np.abs(expected).max())
    image = oracle.matrix(robust) @ flat(u)
    np.testing.assert_allclose(flat(energy.apply(u)), image, atol=1e-5 * np.abs(image).max())


def test_newtons_matrix_is_the_curvature_of_the_energy():
    energy, _ = both()
    u, step = RANDOM.normal(scale=3, size=(2, *energy.shape))
    _, before = energy.evaluate(u, Weights.NEWTON)
    curved = energy.apply(step)
    small = 1e-5
    _, after = energy.evaluate(u + small * step)
    np.testing.assert_allclose((after - before) / small, curved, atol=2e-3 * np.abs(curved).max())


def test_the_majorising_function_touches_the_energy_and_is_nowhere_less():
    energy, _ = both()
    u = RANDOM.normal(scale=3, size=energy.shape)
    value, gradient = energy.evaluate(u, Weights.MAJORISE)
    for size in (0.1, 3.0, 30.0):
        step = RANDOM.normal(scale=size, size=energy.shape)
        quadratic = value.total + (gradient * step).sum() + (step * energy.apply(step)).sum() / 2
        assert energy.evaluate(u + step)[0].total <= quadratic * (1 + 1e-6)


def test_nodes_that_are_to_stay_have_no_force():
    free = np.ones(GRID, np.float32)
    free[1], free[2, 3:] = 0, 0
    energy, oracle = both(free=free)
    u = RANDOM.normal(size=energy.shape)
    _, gradient = energy.evaluate(u, Weights.MAJORISE)
    robust = oracle.robust(flat(u))
    expected = np.where(oracle.free, oracle.matrix(robust) @ flat(u) - oracle.right(robust), 0)
    np.testing.assert_allclose(flat(gradient), expected, atol=1e-5 * np.abs(expected).max())
    energy.prepare()
    step, _ = energy.solve(-gradient, tolerance=1e-10)
    assert not step[1].any()
    assert not step[2, :, 3:].any()
    direct = oracle.solve_direct(robust, flat(u))
    np.testing.assert_allclose(flat(u + step), direct, atol=1e-5)


def test_random_forces_have_the_matrix_as_covariance():
    energy, oracle = both()
    draws = [energy.random_forces(seed) for seed in range(6000)]
    links, sheets = (np.stack([flat(draw[k]) for draw in draws]) for k in (0, 1))
    rest = (oracle.elastic + oracle.anchor * np.eye(oracle.size)).astype(float)
    whole = oracle.matrix(np.ones(len(oracle.target))).toarray()
    for forces, expected in ((links, whole - rest), (sheets, rest)):
        covariance = forces.T @ forces / len(forces)
        assert np.abs(covariance - expected).max() < 0.08 * np.abs(expected).max()
    assert np.abs(links.T @ sheets / len(draws)).max() < 0.08 * np.abs(whole).max()
    np.testing.assert_allclose(
        flat(energy.information()), np.diag(whole - rest), atol=1e-5 * whole.max()
    )


def test_a_part_of_a_stack_draws_the_forces_that_the_whole_draws_there():
    whole, _ = both()
    pairs = [replace(p, z=p.z - 1) for p in measured() if p.z - p.d >= 1]
    part = StackEnergy(
        [p.links(SPACING) for p in pairs],
        (3, 7, 7),
        SPACING,
        CONFIG,
        stiffness=CONFIG.stiffness * CELLS[1:],
    )
    np.testing.assert_array_equal(
        part.random_forces(5, (1, 0, 0))[1], whole.random_forces(5)[1][1:]
    )
    np.testing.assert_array_equal(
        part.random_forces(5, (1, 0, 0))[0][-1], whole.random_forces(5)[0][-1]
    )


def test_threads_and_vectors_do_not_change_the_bits():
    truth = KnownFields(16)
    pairs = sorted(
        (p for d in (1, 2) for p in truth.matches(1024, 32, d=d)), key=lambda p: (p.z, p.d)
    )
    answers = []
    widths = [isa for isa in native.ISAS if native.library(isa)]
    for threads, isa in [(1, None), (2, None), (3, None), *((1, isa) for isa in widths)]:
        energy = StackEnergy(
            *([p.links(32) for p in pairs], (16, 33, 33), 32, CONFIG),
            stiffness=np.ones((16, 32, 32), np.float32),
            threads=threads,
            isa=isa,
        )
        u = np.random.default_rng(0).normal(size=energy.shape)
        value, gradient = energy.evaluate(u, Weights.NEWTON)
        energy.prepare()
        answers.append((value.total, gradient, energy.solve(gradient, tolerance=1e-6)[0]))
    for value, gradient, step in answers[1:]:
        assert value == answers[0][0]
        np.testing.assert_array_equal(gradient, answers[0][1])
        np.testing.assert_array_equal(step, answers[0][2])


def test_a_condensed_energy_is_that_of_smooth_functions():
    """Trilinear between every second node: rigid and stretched exactly, waves from above."""
    pairs = [replace(p, displacement=p.displacement * 0) for p in measured(covariance=False)]
    energy = StackEnergy(
        *([p.links(SPACING) for p in pairs], (4, 7, 7), SPACING, CONFIG),
        stiffness=np.ones((4, 6, 6), np.float32),
    )
    condensed = energy.condense(1)
    assert condensed.mass.sum() == pytest.approx(energy.mass.sum(), rel=1e-6)
    assert condensed.stiffness.sum() == pytest.approx(energy.stiffness.sum() / 4, rel=1e-6)
    z = np.indices((4, 7, 7))[0]
    ramp = np.stack([0.3 * z, -0.2 * z], axis=1)
    fine = (ramp * energy.apply(ramp)).sum()
    coarse = sum(
        values[0].sum() * (0.6 * (z - fixed)) ** 2 + values[2].sum() * (0.4 * (z - fixed)) ** 2
        for (z, fixed), values in condensed.links.items()
    )
    by_mass = (CONFIG.anchor * ramp**2).sum()
    assert coarse == pytest.approx(fine - by_mass, rel=0.35)
