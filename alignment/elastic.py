"""Sections as elastic sheets: linear plane-stress elasticity on bilinear square cells.

A sheet is a mesh of square cells; its unknowns are displacements at the nodes, in the order
(z, y, x, component). In two dimensions the stiffness matrix of a square does not depend on its
size, so one deformation costs the same on any mesh that can express it.

References
----------
.. [1] T. J. R. Hughes, "The Finite Element Method", Prentice-Hall, 1987.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from alignment.fields import Field, check_field

_GAUSS = (0.5 - 0.5 / np.sqrt(3), 0.5 + 0.5 / np.sqrt(3))  # exact for the cell's energy


def elastic_energy(push: Field, *, stiffness: float, poisson_ratio: float) -> float:
    """Energy of one sheet under a push field: half the integral of stress times strain, px^2.

    Parameters
    ----------
    push : float32 ndarray of shape (2, ny, nx)
        Displacements (dy, dx) at the nodes, px; their spacing does not matter.
    stiffness : float
        Young's modulus of the sheet.
    poisson_ratio : float

    Returns
    -------
    float
        0 for a shift. Elasticity is linear, so a small rotation costs nothing to first order.
    """
    ny, nx = check_field(push, name="push")
    cells = np.full((1, ny - 1, nx - 1), stiffness)
    return Sheets(cells, poisson_ratio).energy(np.moveaxis(push, 0, -1).astype(np.float64).ravel())


@dataclass(frozen=True)
class Sheets:
    """The sheets of a stack.

    Attributes
    ----------
    stiffness : float64 ndarray of shape (nz, ny - 1, nx - 1)
        Young's modulus of every cell.
    poisson_ratio : float
    """

    stiffness: NDArray[np.float64]
    poisson_ratio: float

    @property
    def grid(self) -> tuple[int, int, int]:
        """Nodes (nz, ny, nx)."""
        nz, cy, cx = self.stiffness.shape
        return nz, cy + 1, cx + 1

    @cached_property
    def matrix(self) -> sparse.csr_array:
        """Stiffness matrix K of all sheets, (n, n) with n = 2 nz ny nx; the energy is u K u / 2."""
        cell = np.einsum("gka,gkb->ab", self._strains, self._strains)
        unknowns = (2 * self._corners[:, :, None] + np.arange(2)).reshape(-1, 8)
        size = 2 * int(np.prod(self.grid))
        values = self.stiffness.reshape(-1, 1) * cell.ravel()
        rows, columns = np.repeat(unknowns, 8, axis=1), np.tile(unknowns, (1, 8))
        return sparse.csr_array((values.ravel(), (rows.ravel(), columns.ravel())), (size, size))

    def energy(self, u: NDArray[np.float64]) -> float:
        """Energy of displacements (n,), px^2."""
        return float((u * (self.matrix @ u)).sum() / 2)

    def random_forces(self, random: np.random.Generator) -> NDArray[np.float64]:
        """Draw forces (n,) whose covariance is K: the sum of a random stress in every cell."""
        strains = self._strains.reshape(-1, 8)
        stress = random.standard_normal((self.stiffness.size, len(strains)))
        # Not BLAS, whose sums depend on the number of threads.
        forces = np.sqrt(self.stiffness).reshape(-1, 1) * np.einsum("cs,su->cu", stress, strains)
        out = np.zeros((*self.grid, 2))
        corners = forces.reshape(*self.stiffness.shape, 4, 2)
        for k, (y, x) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
            out[:, y : out.shape[1] - 1 + y, x : out.shape[2] - 1 + x] += corners[..., k, :]
        return out.ravel()

    @property
    def _corners(self) -> NDArray[np.int32]:
        """Nodes of every cell (cells, 4): 00, 01, 10, 11."""
        node = np.arange(np.prod(self.grid), dtype=np.int32).reshape(self.grid)
        low, high = slice(None, -1), slice(1, None)
        corners = [node[:, y, x] for y in (low, high) for x in (low, high)]
        return np.stack(corners, axis=-1).reshape(-1, 4)

    @property
    def _strains(self) -> NDArray[np.float64]:
        """Root of the cell's energy (4 Gauss points, 3, 8): energy = |strains @ corners|^2 / 2."""
        nu = self.poisson_ratio
        elasticity = np.array([[1, nu, 0], [nu, 1, 0], [0, 0, (1 - nu) / 2]]) / (1 - nu * nu)
        root = np.linalg.cholesky(elasticity).T / 2  # each of the 4 points stands for 1/4 of area
        strains = []
        for y in _GAUSS:
            for x in _GAUSS:
                along_y, along_x = [x - 1, -x, 1 - x, x], [y - 1, 1 - y, -y, y]
                b = np.zeros((3, 8))
                b[0, 0::2] = b[2, 1::2] = along_y
                b[1, 1::2] = b[2, 0::2] = along_x
                strains.append(root @ b)
        return np.stack(strains)
