"""Problems for the solvers of relaxation, and the measure of an answer."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import cg

from alignment.config import RelaxConfig
from alignment.relax import PairMatches
from tests.assembled import Assembled
from tests.known_fields import KnownFields

SPACING_PX = 32


@dataclass(frozen=True)
class Problem:
    """Matches between the sections of a stack, and what to compare answers with.

    Attributes
    ----------
    pairs : list of PairMatches
        d = 1 and 2; 20 % of the nodes have no match.
    grid : tuple of int
        Nodes (nz, ny, nx), SPACING_PX apart, like the matches.
    config : RelaxConfig
    """

    pairs: list[PairMatches]
    grid: tuple[int, int, int]
    config: RelaxConfig

    @property
    def nodes(self) -> int:
        """How many nodes there are; unknowns are twice as many."""
        return int(np.prod(self.grid))

    @property
    def canvas_yx(self) -> tuple[int, int]:
        """Extent of the common frame, px."""
        return tuple((n - 1) * SPACING_PX + 1 for n in self.grid[1:])  # type: ignore[return-value]

    def assemble(self) -> tuple[sparse.csr_array, np.ndarray]:
        """Matrix and right-hand side of the system, unknowns in the order (z, y, x, component)."""
        whole = Assembled(self.pairs, self.grid, SPACING_PX, SPACING_PX, self.config)
        believed = np.ones(len(whole.target))
        return whole.matrix(believed), whole.right(believed)

    @cached_property
    def system(self) -> tuple[sparse.csr_array, np.ndarray]:
        """The same, made once, to measure answers by."""
        return self.assemble()

    @cached_property
    def least(self) -> np.ndarray:
        """The minimum, to 1e-11 of the right-hand side."""
        matrix, right = self.system
        scale = sparse.diags_array(1 / matrix.diagonal())
        u, failed = cg(matrix, right, rtol=1e-11, maxiter=100_000, M=scale)
        if failed:
            raise AssertionError(f"no reference: conjugate gradients gave up after {failed} steps")
        return u

    def excess(self, u: np.ndarray) -> float:
        """Energy of u above the minimum, as a share of what not moving costs above it."""
        matrix, right = self.system
        error = u - self.least
        return float(error @ (matrix @ error) / (self.least @ right))


def make_problem(
    nz: int,
    ny: int,
    nx: int,
    *,
    missing: float = 0.2,
    length_px: float = 120.0,
    **settings: float,
) -> Problem:
    """Draw smooth fields of up to 10 px and the matches that they cause, with noise of 0.7 px.

    The longer the fields' waves, the larger `relax.stiffness` and the smaller `relax.anchor` (in
    `settings`), the further every match reaches, and the harder is the problem.
    """
    truth = KnownFields(nz, waves=8, length_px=length_px)
    fixed = {"node_spacing_px": SPACING_PX, "huber_px": 1e9, "robust_iterations": 1}
    config = RelaxConfig.model_validate(fixed | settings)
    side = (max(ny, nx) - 1) * SPACING_PX + 1
    pairs = [
        PairMatches(p.z, p.d, np.ascontiguousarray(p.displacement[:, :ny, :nx]))
        for d in (1, 2)
        for p in truth.matches(side, SPACING_PX, d=d, wrong=0.0, missing=missing)
    ]
    return Problem(pairs, (nz, ny, nx), config)
