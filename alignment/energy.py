"""The energy that relaxation minimises, and its minimum.

For displacements U of all nodes, with r = U_z(p) - U_{z-d}(p + m) - m the residual of a match:

    E = sum over matches  (s / 32 px)^2 / d^2 * huber(|r|)
      + stiffness * sum over sections of the energy of an elastic sheet with Young's modulus 1
      + anchor / 2 * integral of |U|^2 over the sections / (32 px)^2

- s is the spacing of the matches. Their templates overlap, so a denser grid is not more knowledge,
  and the weight of an area is what counts; the sheets' energy does not depend on the mesh either.
  With matches every 32 px, one match with a residual of 1 px costs as much as a strain of 3 %
  in one 32 px cell at stiffness 1.
- |r| is measured by the matches' covariances, relative to the typical one.

Huber's function is minimised by iterative re-weighting: in each round a quadratic energy, whose
matrix is sparse, symmetric and positive definite. E is convex: the minimum depends neither on the
order of the matches nor on the start.

References
----------
.. [1] P. J. Huber, "Robust estimation of a location parameter", Annals of Mathematical Statistics
   35, 1964.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from alignment.config import RelaxConfig
from alignment.elastic import Sheets
from alignment.links import REFERENCE_PX, Links
from alignment.multigrid import Multigrid, solve

Vector = NDArray[np.float64]

_SETTLED_PX = 1 / 128
_LEAST_ANCHOR = 1e-6  # without any, shifts of the whole stack would cost nothing


@dataclass(frozen=True)
class Energy:
    """A value of the energy by its parts, px^2."""

    matches: float
    elastic: float
    anchor: float


@dataclass(frozen=True)
class StackEnergy:
    """The energy of a stack as a function of its displacements u, float64 (2 * nz * ny * nx,).

    Attributes
    ----------
    links : Links
        The matches.
    sheets : Sheets
        The sections, with config.stiffness in their cells.
    config : RelaxConfig
    """

    links: Links
    sheets: Sheets
    config: RelaxConfig

    @property
    def anchor(self) -> float:
        """Weight of |u|^2 / 2 of a node."""
        cell = (self.config.node_spacing_px / REFERENCE_PX) ** 2
        return max(self.config.anchor, _LEAST_ANCHOR) * cell

    @cached_property
    def _background(self) -> sparse.csr_array:
        elastic = self.sheets.matrix
        return (elastic + self.anchor * sparse.eye_array(elastic.shape[0], format="csr")).tocsr()

    def matrix(self, robust: Vector) -> sparse.csr_array:
        """Return the matrix of the quadratic energy in which matches have weights `robust`."""
        return (self._background + self.links.information(robust)).tocsr()

    def robust(self, u: Vector) -> Vector:
        """Return Huber's weight of every match: 1 for a small residual, then falling with it."""
        length, limit = self.links.length(self.links.residual(u)), self.config.huber_px
        return np.asarray(limit / np.maximum(length, limit))

    def value(self, u: Vector) -> Energy:
        """Return the energy of displacements."""
        length, limit = self.links.length(self.links.residual(u)), self.config.huber_px
        huber = np.where(length < limit, length**2 / 2, limit * (length - limit / 2))
        return Energy(
            matches=float((self.links.weight * huber).sum()),
            elastic=self.sheets.energy(u),
            anchor=float(self.anchor * (u * u).sum() / 2),
        )

    def stiffened(self, factors: Vector) -> Self:
        """Return the same energy with the stiffness of cells (nz, ny - 1, nx - 1) multiplied."""
        sheets = Sheets(self.sheets.stiffness * factors, self.sheets.poisson_ratio)
        return replace(self, sheets=sheets)

    def minimise(self, start: Vector | None = None) -> tuple[Vector, Vector, int]:
        """Find the minimum.

        Returns
        -------
        u : float64 ndarray of shape (2 * nz * ny * nx,)
        robust : float64 ndarray of shape (n,)
            Weights of the matches in the last round.
        iterations : int
            Conjugate-gradient steps of all rounds.

        Raises
        ------
        ConvergenceError
            If config.max_iterations do not reach config.tolerance in a round.
        """
        config, links, grid = self.config, self.links, self.sheets.grid
        u = np.zeros(2 * int(np.prod(grid))) if start is None else start
        # Without a start every match is believed: U = 0 would suspect the right ones.
        robust = np.ones(len(links.target)) if start is None else self.robust(start)
        iterations, preconditioner = 0, None
        for _ in range(config.robust_iterations):
            matrix = self.matrix(robust)
            # Re-weighting changes the matrix little: the first round's hierarchy serves them all.
            preconditioner = preconditioner or Multigrid.of(matrix, grid)
            before = u
            u, steps = solve(
                matrix,
                links.forces(robust, links.target),
                u,
                preconditioner,
                tolerance=config.tolerance,
                max_iterations=config.max_iterations,
            )
            iterations += steps
            if np.abs(u - before).max() < _SETTLED_PX:
                break
            robust = self.robust(u)
        return u, robust, iterations
