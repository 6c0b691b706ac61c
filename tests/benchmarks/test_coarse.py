"""What the coarse stage costs: a stack of n sections needs 3 n pairs and one solution."""

from __future__ import annotations

import numpy as np
import pytest

from alignment.affines import compose_affines, invert_affine
from alignment.coarse import PairAffine, estimate_pair, fit_canvas, solve_stack
from alignment.config import CoarseConfig
from alignment.phantom import Phantom, PhantomConfig


@pytest.fixture(scope="module")
def sections():
    phantom = Phantom(PhantomConfig(sections=2, height=512, width=512))
    other = Phantom(PhantomConfig(seed=8, sections=2, height=512, width=512))
    return phantom.section(0), phantom.section(1), other.section(1)


@pytest.mark.parametrize("case", ["as usual", "turned", "foreign"])
def test_estimate_pair(benchmark, sections, case):
    """One pair; 1,000 sections need 3,000. Only foreign sections go through every search."""
    fixed, moving, foreign = sections
    moving = {"as usual": moving, "turned": np.rot90(moving).copy(), "foreign": foreign}[case]
    valid = np.ones(fixed.shape, np.bool_)
    found = benchmark(estimate_pair, fixed, moving, valid, valid, CoarseConfig(), mip=1)
    assert (found is None) == (case == "foreign")


@pytest.mark.parametrize("count", [500])
def test_solve_stack(benchmark, count):
    """A whole stack, once; 500 sections must stay below 5 s."""
    random = np.random.default_rng(0)
    shape = (4096, 4096)

    def jittered(spread, shift_px):
        linear = np.eye(2) + random.normal(0, spread, (2, 2))
        return np.column_stack(
            [linear, 2048 - linear @ (2048, 2048) + random.normal(0, shift_px, 2)]
        )

    transforms = [jittered(0.02, 100) for _ in range(count)]
    pairs = {}
    for z in range(count):
        for d in range(1, min(3, z) + 1):
            true = compose_affines(transforms[z], invert_affine(transforms[z - d]))
            matrix = compose_affines(jittered(0.003, 5), true)
            pairs[z, d] = PairAffine(matrix, score=0.5, inliers=100, method="made up")
    solution = benchmark.pedantic(solve_stack, (pairs, count, shape, [], CoarseConfig()), rounds=1)
    assert solution.rejected == solution.bridged == ()
    assert max(fit_canvas(solution.matrices, shape)[1]) < 1.5 * shape[0]
