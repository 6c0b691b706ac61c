"""The energy that relaxation minimises, as a function of the displacements of all nodes.

With r = U_z(p) - U_{z-d}(p + m) - m the residual of a match m at point p, the energy is

    E = sum over matches  (s / 32 px)^2 / d^2 * huber(|r|)
      + stiffness * sum over sections of the energy of an elastic sheet with Young's modulus 1
      + anchor / 2 * integral of |U|^2 over the sections / (32 px)^2

- s is the spacing of the matches. Their templates overlap, so a denser grid is not more knowledge,
  and the weight of an area is what counts; the sheets' energy does not depend on the mesh either.
  With matches every 32 px, one match with a residual of 1 px costs as much as a strain of 3 %
  in one 32 px cell at stiffness 1.
- |r| is measured by the matches' covariances, relative to the typical one.
- A sheet is a mesh of bilinear square cells in plane stress. Elasticity is linear: a shift and a
  small rotation cost nothing.

E is convex: the minimum depends neither on the order of the matches nor on the start. The compiled
kernel (`alignment.native`) computes it, its gradient, and products with its matrix from the matches
and the cells themselves. No matrix is stored, and the bits do not depend on the number of threads.

References
----------
.. [1] P. J. Huber, "Robust estimation of a location parameter", Annals of Mathematical Statistics
   35, 1964.
.. [2] T. J. R. Hughes, "The Finite Element Method", Prentice-Hall, 1987.
"""

from __future__ import annotations

import ctypes
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alignment import native
from alignment.config import RelaxConfig
from alignment.errors import ConfigError, ConvergenceError
from alignment.links import REFERENCE_PX, Links

Vector = NDArray[np.float64]
"""Over all nodes, (nz, 2, ny, nx): dy and dx, px."""

LEAST_ANCHOR = 1e-6
"""Without any, shifts of the whole stack would cost nothing."""


class Weights(IntEnum):
    """Which quadratic function of the displacements stands for Huber's."""

    KEEP = 0
    """The one there is; at first: every match is believed."""
    MAJORISE = 1
    """The one that touches it and is nowhere less: its minimum never has more energy."""
    NEWTON = 2
    """The one with its curvature: quicker near the minimum."""


@dataclass(frozen=True)
class Energy:
    """A value of the energy by its parts, px^2."""

    matches: float
    elastic: float
    anchor: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.matches + self.elastic + self.anchor


class Condensed(NamedTuple):
    """The quadratic energy of functions that are trilinear between every 2^n-th node."""

    stiffness: NDArray[np.float32]
    """(nz, ny - 1, nx - 1)."""
    mass: NDArray[np.float32]
    """(nz, ny, nx): weight of |u|^2 / 2."""
    links: dict[tuple[int, int], NDArray[np.float32]]
    """By moving and fixed section: weights (yy, yx, xx) and match (dy, dx), (5, ny, nx)."""


class StackEnergy:
    """The energy of a stack, and the quadratic function that stands for it near some place.

    Parameters
    ----------
    links : sequence of Links
        The pairs' matches, in ascending order of z, then d.
    grid : tuple of int
        Nodes (nz, ny, nx).
    match_spacing_px : int
    config : RelaxConfig
    stiffness : float32 ndarray of shape (nz, ny - 1, nx - 1)
        Young's modulus of every cell.
    mass : float32 ndarray of shape (nz, ny, nx), optional
        Weight of |u|^2 / 2 of every node; by default the anchor's.
    free : float32 ndarray of shape (nz, ny, nx), optional
        1 where a node may move, 0 where it is to stay.
    threads : int
    isa : str, optional
        One of `native.ISAS`, for tests. Neither changes the bits.

    Raises
    ------
    ConfigError
        If the kernel was not built.
    """

    def __init__(
        self,
        links: Sequence[Links],
        grid: tuple[int, int, int],
        match_spacing_px: int,
        config: RelaxConfig,
        *,
        stiffness: NDArray[np.float32],
        mass: NDArray[np.float32] | None = None,
        free: NDArray[np.float32] | None = None,
        threads: int = 1,
        isa: str | None = None,
    ) -> None:
        self.grid = grid
        self.config = config
        self.links = tuple(links)
        self.stiffness = np.ascontiguousarray(stiffness, np.float32)
        self.shape = (grid[0], 2, *grid[1:])
        self.free = None if free is None else np.ascontiguousarray(free, np.float32)
        self.mass = np.full(grid, anchor(config), np.float32) if mass is None else mass
        self._library = _library(isa)
        self._kept: list[Any] = []
        ratio = match_spacing_px / config.node_spacing_px
        rows = [
            native.PairInput(
                *(pair.z, pair.z - pair.d, *pair.weight.shape, ratio),
                *map(self._address, (pair.match, pair.weight, pair.precision)),
            )
            for pair in links
        ]
        table = (native.PairInput * max(len(rows), 1))(*rows)
        self._kept.append(table)
        described = native.StackInput(
            *(*grid, len(rows), config.node_spacing_px, config.poisson_ratio),
            *(self._address(array) for array in (self.stiffness, self.mass, self.free)),
            table,
            threads,
        )
        self._stack = ctypes.c_void_p(self._library.petalign_stack_new(ctypes.byref(described)))
        if not self._stack:
            raise MemoryError("no memory for the links of a stack; make relax.slab_sections less")
        weakref.finalize(self, self._library.petalign_stack_delete, self._stack)

    def without_matches(self) -> StackEnergy:
        """Return the energy of the sheets and the anchor alone."""
        return StackEnergy(
            *((), self.grid, self.config.node_spacing_px, self.config),
            stiffness=self.stiffness,
            mass=self.mass,
            free=self.free,
        )

    def evaluate(
        self, u: Vector, weights: Weights = Weights.KEEP, *, huber_px: float | None = None
    ) -> tuple[Energy, Vector]:
        """Return the energy and its gradient; nodes that are to stay have none.

        Parameters
        ----------
        u : float64 ndarray of shape (nz, 2, ny, nx)
        weights : Weights
            Which quadratic function is to stand for the energy from now on.
        huber_px : float, optional
            Other than the configuration's; infinite to believe every match.
        """
        gradient, parts = np.empty(self.shape), np.empty(3)
        limit = self.config.huber_px if huber_px is None else huber_px
        self._call("evaluate", u, gradient, parts, limit, int(weights))
        return Energy(*parts.tolist()), gradient

    def prepare(self) -> None:
        """Build the hierarchy of the quadratic function; `solve` and `cycle` need it."""
        self._call("prepare")

    def solve(self, right: Vector, *, tolerance: float) -> tuple[Vector, list[float]]:
        """Solve A x = right, A the matrix of the quadratic function.

        Conjugate gradients, preconditioned by one V-cycle of multigrid a step.

        Returns
        -------
        x : float64 ndarray of shape (nz, 2, ny, nx)
        residuals : list of float
            Length of the residual relative to that of `right`, before every step and at the end.

        Raises
        ------
        ConvergenceError
            If the last residual is above `tolerance` after config.max_iterations steps.
        """
        x, residuals = np.empty(self.shape), np.zeros(self.config.max_iterations + 1)
        steps = self._call("solve", right, x, tolerance, self.config.max_iterations, residuals)
        if residuals[steps] > tolerance:
            raise ConvergenceError(
                f"the elastic solve reached a relative residual of {residuals[steps]:.1e} after "
                f"{steps} steps, asked for {tolerance:.1e}; raise relax.max_iterations, "
                "relax.tolerance or relax.stiffness"
            )
        return x, residuals[: steps + 1].tolist()

    def apply(self, x: Vector) -> Vector:
        """Return A x."""
        y = np.empty(self.shape)
        self._call("apply", x, y)
        return y

    def cycle(self, right: Vector) -> NDArray[np.float32]:
        """Return what one V-cycle makes of a right-hand side: linear in it, symmetric, positive."""
        x = np.empty(self.shape, np.float32)
        self._call("cycle", right, x)
        return x

    def random_forces(
        self, seed: int, origin: tuple[int, int, int] = (0, 0, 0)
    ) -> tuple[Vector, Vector]:
        """Draw forces whose covariances are the matches' part of A, and the rest of it.

        They belong to their place in the whole volume, in which this stack's first node lies at
        `origin`: a part of a volume draws what the whole draws there.
        """
        of_links, of_sheets = np.empty(self.shape), np.empty(self.shape)
        self._call("link_forces", seed, np.array(origin, np.int32), of_links)
        self._call("sheet_forces", seed, np.array(origin, np.int32), of_sheets)
        return of_links, of_sheets

    def information(self) -> Vector:
        """Return the diagonal of the matches' part of A."""
        diagonal = np.empty(self.shape)
        self._call("information", diagonal)
        return diagonal

    def levels(self) -> list[tuple[int, int, int]]:
        """Return the grids (nz, ny, nx) of the hierarchy, finest first."""
        return [self._level(depth)[0] for depth in range(self._call("prepare"))]

    def condense(self, halvings: int) -> Condensed:
        """Return the quadratic function on every 2^halvings-th node of all axes."""
        self._call("condense", halvings)
        (nz, ny, nx), n_pairs = self._level(halvings)
        stiffness = np.empty((nz, ny - 1, nx - 1), np.float32)
        mass = np.empty((nz, ny, nx), np.float32)
        self._call("sheets", halvings, stiffness, mass)
        links = {}
        for k in range(n_pairs):
            sections, values = np.empty(2, np.int32), np.empty((5, ny, nx), np.float32)
            self._call("links", halvings, k, sections, values)
            links[int(sections[0]), int(sections[1])] = values
        return Condensed(stiffness, mass, links)

    def _level(self, depth: int) -> tuple[tuple[int, int, int], int]:
        grid = np.empty(3, np.int32)
        pairs = self._call("level", depth, grid)
        nz, ny, nx = grid.tolist()
        return (nz, ny, nx), pairs

    def _call(self, name: str, *arguments: Any) -> int:
        given = [
            np.ascontiguousarray(a) if isinstance(a, np.ndarray) else a for a in arguments
        ]  # kept until the call is over
        result = int(
            getattr(self._library, f"petalign_stack_{name}")(
                self._stack, *(a.ctypes.data if isinstance(a, np.ndarray) else a for a in given)
            )
        )
        if result < 0:
            raise MemoryError("no memory to relax a stack; make relax.slab_sections less")
        return result

    def _address(self, array: NDArray[np.float32] | None) -> int | None:
        if array is None:
            return None
        array = np.ascontiguousarray(array, np.float32)
        self._kept.append(array)
        return int(array.ctypes.data)


def anchor(config: RelaxConfig) -> float:
    """Return the weight of |u|^2 / 2 of a node."""
    return max(config.anchor, LEAST_ANCHOR) * (config.node_spacing_px / REFERENCE_PX) ** 2


def _library(isa: str | None) -> ctypes.CDLL:
    library = native.library(isa)
    if library is None:
        raise ConfigError(
            "relaxation needs the compiled kernel, which was not built; run `make install`, or "
            "`python -m alignment.native.build`"
        )
    return library
