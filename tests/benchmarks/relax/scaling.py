"""How the solver's time, steps and memory grow with the mesh.

Every size is solved in a process of its own, so that its peak memory is its own. Matches are those
of smooth fields with noise, d = 1 and 2, a fifth of them missing, as in `problems`; they are drawn
cheaply, because the largest mesh has thirty million.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np

from alignment.config import RelaxConfig
from alignment.energy import StackEnergy
from alignment.links import Links

GRIDS = ((8, 25, 25), (16, 56, 56), (32, 125, 125), (64, 280, 280), (64, 484, 484))
"""Nodes (nz, ny, nx): 10^4, 10^5, 10^6, 10^7 and 3 x 10^7 unknowns."""
TOLERANCE = 1e-6
SPACING_PX = 32


def draw(grid: tuple[int, int, int], missing: float = 0.2) -> list[Links]:
    """Draw the matches of smooth fields of some 8 px, with noise of 0.7 px."""
    nz, ny, nx = grid
    random = np.random.default_rng(0)
    y, x = np.arange(ny)[:, None] * SPACING_PX / 300.0, np.arange(nx) * SPACING_PX / 300.0

    def push() -> np.ndarray:
        waves = random.normal(size=(4, 2, 2))
        phases = random.uniform(0, 2 * np.pi, size=(4, 2))
        field = [
            sum(
                np.sin(w[c, 0] * y + w[c, 1] * x + p[c]) for w, p in zip(waves, phases, strict=True)
            )
            for c in (0, 1)
        ]
        return (3 * np.stack(field)).astype(np.float32)

    links, before = [], list[np.ndarray]()
    for z in range(nz):
        field = push()
        for d, other in enumerate(reversed(before), 1):
            noise = random.standard_normal((2, ny, nx), np.float32) * np.float32(0.7)
            weight = (random.random((ny, nx), np.float32) >= missing) / np.float32(d * d)
            links.append(Links(z, d, other - field + noise, weight.astype(np.float32)))
        before = [*before[-1:], field]
    return links


def measure(grid: tuple[int, int, int], threads: int) -> dict[str, Any]:
    """Solve one linear problem to `TOLERANCE`, in this process."""
    links = draw(grid)
    before_mb = _peak_mb()
    nz, ny, nx = grid
    config = RelaxConfig()
    begin = time.perf_counter()
    energy = StackEnergy(
        *(links, grid, SPACING_PX, config),
        stiffness=np.full((nz, ny - 1, nx - 1), config.stiffness, np.float32),
        threads=threads,
    )
    _, gradient = energy.evaluate(np.zeros(energy.shape), huber_px=np.inf)
    np.negative(gradient, out=gradient)
    energy.prepare()
    ready = time.perf_counter()
    _, residuals = energy.solve(gradient, tolerance=TOLERANCE)
    done = time.perf_counter()
    return {
        "unknowns": 2 * nz * ny * nx,
        "steps": len(residuals) - 1,
        "prepare_s": ready - begin,
        "solve_s": done - ready,
        "nodes_per_s": nz * ny * nx / (done - begin),
        "peak_mb": _peak_mb(),
        "matches_mb": before_mb,
    }


def measure_apart(grid: tuple[int, int, int], threads: int) -> dict[str, Any]:
    """Do the same in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "tests.benchmarks.relax.scaling",
        *map(str, grid),
        str(threads),
    ]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(found.stdout.splitlines()[-1]))


def markdown(rows: list[dict[str, Any]], threads: int) -> str:
    """Return the results as a table."""
    lines = [
        f"### One linear solve to a relative residual of {TOLERANCE:.0e}, {threads} "
        f"thread{'s' if threads > 1 else ''}",
        "",
        "| unknowns | steps | set-up, s | solution, s | nodes/s | us per node "
        "| peak memory, MB | of it matches and Python, MB |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {r['unknowns']:,} | {r['steps']} | {r['prepare_s']:.2f} | {r['solve_s']:.2f} "
        f"| {r['nodes_per_s']:,.0f} | {1e6 / r['nodes_per_s']:.2f} | {r['peak_mb']:,.0f} "
        f"| {r['matches_mb']:,.0f} |"
        for r in rows
    ]
    return "\n".join(lines) + "\n"


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    nz_, ny_, nx_, threads_ = map(int, sys.argv[1:5])
    print(json.dumps(measure((nz_, ny_, nx_), threads_)))
