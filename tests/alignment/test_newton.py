import numpy as np
import pytest

from alignment.config import RelaxConfig
from alignment.energy import StackEnergy
from alignment.errors import ConvergenceError
from alignment.newton import length, minimise
from tests.assembled import Assembled
from tests.known_fields import KnownFields

SIDE, SPACING = 192, 32
GRID = (4, 7, 7)


def energy(*, free=None, stiffness=1.5, **settings):
    pairs = KnownFields(4).matches(SIDE, SPACING, d=1, wrong=0.3)
    config = RelaxConfig(
        **{"huber_px": 2.0, "anchor": 0.01, "stiffness": stiffness, "tolerance": 1e-9, **settings}
    )
    cells = np.full((4, 6, 6), stiffness, np.float32)
    oracle = Assembled(pairs, GRID, SPACING, SPACING, config, free=free)
    return StackEnergy(
        [p.links(SPACING) for p in pairs], GRID, SPACING, config, stiffness=cells, free=free
    ), oracle


def flat(u):
    return np.moveaxis(u, 1, -1).ravel()


@pytest.mark.parametrize("huber_px", [0.2, 2.0, 1e6])
def test_the_minimum_is_that_of_direct_solves(huber_px):
    stack, oracle = energy(huber_px=huber_px)
    found = minimise(stack)
    assert found.reason == "converged"
    assert found.residual <= 1e-9
    np.testing.assert_allclose(flat(found.u), oracle.minimise_direct(rounds=2000), atol=2e-3)
    assert found.energy.total <= oracle.value(oracle.minimise_direct(rounds=2000)) * (1 + 1e-7)


def test_sections_that_are_held_stay_and_the_others_come_to_them():
    free = np.ones(GRID, np.float32)
    free[1] = 0
    stack, oracle = energy(free=free)
    held = np.zeros(stack.shape)
    held[1] = 3.0
    found = minimise(stack, held)
    assert (found.u[1] == 3).all()
    expected = oracle.minimise_direct(flat(held), rounds=500)
    np.testing.assert_allclose(flat(found.u), expected, atol=2e-3)


def test_the_minimum_does_not_depend_on_the_start():
    stack, _ = energy()
    far = np.random.default_rng(0).normal(scale=30, size=stack.shape)
    np.testing.assert_allclose(minimise(stack, far).u, minimise(stack).u, atol=1e-4)


@pytest.mark.parametrize("huber_px", [0.05, 2.0])
def test_the_energy_never_rises(huber_px):
    stack, _ = energy(huber_px=huber_px)
    found = minimise(stack, np.random.default_rng(1).normal(scale=50, size=stack.shape))
    values = [entry.energy for entry in found.rounds] + [found.energy.total]
    assert len(values) > 3
    assert (np.diff(values) <= 1e-12 * values[0]).all()


def test_the_residual_is_the_gradients():
    stack, _ = energy(tolerance=1e-4)
    found = minimise(stack)
    _, believed = stack.evaluate(np.zeros(stack.shape), huber_px=np.inf)
    assert found.reference == pytest.approx(length(believed))
    assert found.residual == pytest.approx(length(stack.evaluate(found.u)[1]) / found.reference)
    assert 1e-9 < found.residual <= 1e-4


def test_running_out_of_rounds_is_told_not_raised(caplog):
    stack, _ = energy(robust_iterations=2)
    assert minimise(stack).reason == "rounds"
    assert "relax.robust_iterations" in caplog.text


def test_a_round_that_is_not_solved_names_the_settings():
    stack, _ = energy(max_iterations=1)
    with pytest.raises(ConvergenceError, match=r"after 1 steps.*relax\.max_iterations"):
        minimise(stack)
