"""Ways to minimise the quadratic energy of relaxation, brought to one energy and timed in turns.

Huber's limit is out of reach, so every way solves one symmetric positive definite system. How good
an answer is says its *excess*: its energy above the minimum, as a share of what lies between the
minimum and the energy of not moving at all. First each way is run once, untimed, to find the least
effort (steps, or a tolerance) that brings the excess below a goal; then all are timed with that
effort, in rounds in which each has its turn, and nothing is measured within a turn.

A way takes the matches and gives the displacements: its matrix, factors or hierarchy are made
within its turn, and how long that took is told beside it.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from statistics import median
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import cg, splu

from alignment.bilinear import grid_points
from alignment.springs import SpringMesh, fire
from tests.benchmarks.relax.problems import SPACING_PX, Problem

Watch = Callable[[np.ndarray], None]


class Way(NamedTuple):
    """One way to solve a problem.

    `prepare` makes what it needs of a problem; `solve` gives displacements (z, y, x, component),
    flat, for an effort. A way that counts steps calls the watch, if there is one, after each step;
    one that takes tolerances instead lists them in `efforts`, from least to most effort.
    """

    name: str
    prepare: Callable[[Problem], Any]
    solve: Callable[[Any, float, Watch | None], np.ndarray]
    efforts: Sequence[float] = ()


def _cg(state: Any, steps: float, watch: Watch | None) -> np.ndarray:
    matrix, right, scale = state
    # rtol 0 would stop at nothing; what stops is the number of steps.
    return cg(matrix, right, rtol=1e-300, maxiter=int(steps), M=scale, callback=watch)[0]


def _prepare_cg(problem: Problem) -> Any:
    matrix, right = problem.assemble()
    return matrix, right, sparse.diags_array(1 / matrix.diagonal())


def _prepare_pyamg(problem: Problem) -> Any:
    from pyamg import smoothed_aggregation_solver

    matrix, right = problem.assemble()
    # What costs (nearly) nothing: shifts along y and x, and turns.
    y, x = np.tile(grid_points(*problem.grid[1:], 1.0), (problem.grid[0], 1)).T
    shift = np.tile(np.eye(2), (len(y), 1))
    turn = np.stack([x - x.mean(), y.mean() - y], axis=1).reshape(-1, 1)
    blocks = sparse.bsr_array(matrix, blocksize=(2, 2))
    hierarchy = smoothed_aggregation_solver(blocks, B=np.hstack([shift, turn]), max_coarse=500)
    return hierarchy, right


def _pyamg(state: Any, steps: float, watch: Watch | None) -> np.ndarray:
    hierarchy, right = state
    return hierarchy.solve(right, tol=1e-15, maxiter=int(steps), accel="cg", callback=watch)


def _prepare_springs(problem: Problem, *, equal: bool, eased: bool = False) -> Any:
    mesh = SpringMesh.of(problem.pairs, problem.grid, SPACING_PX, problem.config)
    masses = mesh.masses()
    return mesh, np.full_like(masses, masses.max()) if equal else masses, eased


def _springs(state: Any, steps: float, watch: Watch | None) -> np.ndarray:
    mesh, masses, eased = state
    done = 0

    def forces(u: np.ndarray) -> np.ndarray:
        # SOFIMA caps the force of matches at a residual of 1 px (its cap of 0.01 over a stiffness
        # of 0.01), then lets it grow by a tenth every 100 steps up to 1000 px.
        limit = min(1.1 ** (done // 100), 1000.0) if eased else mesh.huber_px
        return replace(mesh, huber_px=limit).forces(u)

    u = start = np.zeros((2, *masses.shape))
    for u, _ in islice(fire(forces, masses, start), int(steps)):
        done += 1
        if watch is not None:
            watch(np.moveaxis(u, 0, -1).ravel())
    return np.moveaxis(u, 0, -1).ravel()


def _prepare_direct(problem: Problem) -> Any:
    matrix, right = problem.assemble()
    return splu(matrix.tocsc(), permc_spec="MMD_AT_PLUS_A", options={"SymmetricMode": True}), right


DIRECT = Way("scipy spsolve (SuperLU)", _prepare_direct, lambda s, _e, _w: s[0].solve(s[1]), (1,))
CG = Way("scipy CG, Jacobi", _prepare_cg, _cg)
PYAMG = Way("pyamg smoothed aggregation, CG", _prepare_pyamg, _pyamg)
FIRE = Way("FIRE, masses by stiffness", lambda p: _prepare_springs(p, equal=False), _springs)
FIRE_EQUAL = Way("FIRE, equal masses", lambda p: _prepare_springs(p, equal=True), _springs)
FIRE_EASED = Way(
    "FIRE, equal masses, SOFIMA's cap of forces",
    lambda p: _prepare_springs(p, equal=True, eased=True),
    _springs,
)
WAYS = (CG, PYAMG, FIRE, FIRE_EQUAL, FIRE_EASED)
"""Those that also serve large problems; DIRECT fills memory beyond some 10^4 nodes."""


class _Enough(Exception):
    pass


def least_efforts(
    problem: Problem, way: Way, goals: Sequence[float], most_steps: int = 20_000
) -> list[float | None]:
    """Return the least effort that brings the excess below each goal (from large to small).

    None where `most_steps`, or the last of the way's efforts, is not enough.
    """
    state = way.prepare(problem)
    found: list[float] = []

    def note(effort: float, u: np.ndarray) -> bool:
        excess = problem.excess(u)
        while len(found) < len(goals) and excess <= goals[len(found)]:
            found.append(effort)
        return len(found) == len(goals)

    if way.efforts:
        any(note(effort, way.solve(state, effort, None)) for effort in way.efforts)
    else:
        step = 0

        def watch(u: np.ndarray) -> None:
            nonlocal step
            step += 1
            if note(step, u):
                raise _Enough

        with suppress(_Enough):
            way.solve(state, most_steps, watch)
    return [*found, *[None] * (len(goals) - len(found))]


class Row(NamedTuple):
    """How one way fared: medians over the rounds, and ratios within rounds."""

    name: str
    effort: float
    excess: float
    off_px: float
    """Largest distance of a displacement from the minimum's."""
    prepare_s: float
    solve_s: float
    slower: float
    """Whole turn of this way over that of the first, median over the rounds."""
    slower_solve: float
    """The same without what `prepare` took."""


def race(
    problem: Problem, ways: Sequence[Way], goal: float, *, rounds: int = 3, most_steps: int = 20_000
) -> list[Row]:
    """Bring every way to the goal and time it; one that cannot reach it is left out.

    The first way is what the others are compared with.
    """
    efforts = {way.name: least_efforts(problem, way, [goal], most_steps)[0] for way in ways}
    able = [way for way in ways if efforts[way.name] is not None]
    turns: dict[str, list[tuple[float, float]]] = {way.name: [] for way in able}
    reached: dict[str, tuple[float, float]] = {}
    for round_ in range(rounds):
        shift = round_ % len(able)
        for way in able[shift:] + able[:shift]:
            gc.collect()
            begin = time.perf_counter()
            state = way.prepare(problem)
            ready = time.perf_counter()
            u = way.solve(state, efforts[way.name], None)
            turns[way.name].append((ready - begin, time.perf_counter() - ready))
            del state
            reached[way.name] = problem.excess(u), float(np.abs(u - problem.least).max())
    first = turns[able[0].name]
    return [
        Row(
            name,
            float(efforts[name]),
            *reached[name],
            median(p for p, _ in times),
            median(s for _, s in times),
            median(sum(t) / sum(f) for t, f in zip(times, first, strict=True)),
            median(t[1] / f[1] for t, f in zip(times, first, strict=True)),
        )
        for name, times in turns.items()
    ]


def markdown(problem: Problem, goal: float, rows: Sequence[Row]) -> str:
    """Return the results as a table."""
    lines = [
        f"### {problem.nodes:,} nodes {problem.grid}, excess of energy at most {goal:.0e}",
        "",
        "| way | steps | excess | off by, px | set-up, s | solution, s "
        f"| whole turn, times {rows[0].name} | solution alone |",
        "|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {r.name} | {r.effort:g} | {r.excess:.1e} | {r.off_px:.4f} | {r.prepare_s:.2f} "
        f"| {r.solve_s:.2f} | {r.slower:.1f} | {r.slower_solve:.1f} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"
