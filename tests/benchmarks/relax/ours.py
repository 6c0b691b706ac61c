"""Our own solver as one of the ways of `tests.benchmarks.relax.peers`."""

from __future__ import annotations

from typing import Any

import numpy as np

from alignment.energy import StackEnergy
from tests.benchmarks.relax.peers import Watch, Way
from tests.benchmarks.relax.problems import SPACING_PX, Problem


def energy_of(problem: Problem, threads: int = 1) -> StackEnergy:
    """Return the energy of a problem."""
    nz, ny, nx = problem.grid
    return StackEnergy(
        [pair.links(SPACING_PX) for pair in sorted(problem.pairs, key=lambda p: (p.z, p.d))],
        *(problem.grid, SPACING_PX, problem.config),
        stiffness=np.full((nz, ny - 1, nx - 1), problem.config.stiffness, np.float32),
        threads=threads,
    )


def _prepare(problem: Problem) -> Any:
    energy = energy_of(problem)
    _, gradient = energy.evaluate(np.zeros(energy.shape), huber_px=np.inf)
    energy.prepare()
    return energy, gradient


def _solve(state: Any, tolerance: float, _: Watch | None) -> np.ndarray:
    energy, gradient = state
    u, _ = energy.solve(-gradient, tolerance=tolerance)
    return np.moveaxis(u, 1, -1).ravel()


OURS = Way("petalign", _prepare, _solve, tuple(10.0**-k for k in range(1, 11)))
"""Effort is the tolerance, relative residual."""
