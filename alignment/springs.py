"""A spring mesh relaxed by explicit steps: the slow cross-check of `alignment.relax`.

Masses sit at the nodes of all sections. Within a section each is tied to its eight neighbours by
linearised springs, whose 2 x 2 stiffness is that of the elastic cells between them, and a weak
spring pulls it home. A match is a spring between a point of section z and the point of section
z - d that it found. All of it costs what the energy of `alignment.relax` says, so both have one
minimum, but they share neither code nor method: here Newton's equations are followed by FIRE [1]_,
which mixes the velocity with the direction of the force and stops the masses when they climb.

References
----------
.. [1] E. Bitzek, P. Koskinen, F. Gaehler, M. Moseler, P. Gumbsch, "Structural Relaxation Made
   Simple", Physical Review Letters 97, 170201, 2006.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from alignment.bilinear import grid_points, interpolation
from alignment.config import RelaxConfig
from alignment.errors import ConvergenceError, DataError
from alignment.relax import PairMatches

__all__ = ["SpringMesh", "fire", "relax_springs"]

Array = NDArray[np.float64]

REFERENCE_PX = 32.0
"""Matches and anchor weigh 1 for an area of this side."""

# FIRE's own constants; the time step is in units of the swing of a single node.
_FIRST_STEP, _LONGEST_STEP = 0.1, 1.0
_PATIENCE_STEPS = 5
_FASTER, _SLOWER = 1.1, 0.5
_MIXING, _LESS_MIXING = 0.1, 0.99

_CORNERS = tuple(
    (..., slice(y, y - 1 or None), slice(x, x - 1 or None)) for y in (0, 1) for x in (0, 1)
)


@dataclass(frozen=True)
class SpringMesh:
    """The springs of a stack; positions are displacements u, float64 (2, nz, ny, nx), px.

    Attributes
    ----------
    stiffness : float64 ndarray of shape (nz, ny - 1, nx - 1)
        Young's modulus of the cells.
    poisson_ratio : float
    difference : csr_array of shape (n, nz * ny * nx)
        Ends of the matches: displacement at the one minus that at the other.
    length : float64 ndarray of shape (2, n)
        What that should be, px.
    strength : float64 ndarray of shape (n,)
        Stiffness of the matches' springs.
    huber_px : float
        A match pulls no harder than at this residual, px.
    anchor : float
        Stiffness of the spring that pulls a node home.
    """

    stiffness: Array
    poisson_ratio: float
    difference: sparse.csr_array
    length: Array
    strength: Array
    huber_px: float
    anchor: float

    @classmethod
    def of(
        cls,
        pairs: Sequence[PairMatches],
        grid: tuple[int, int, int],
        match_spacing_px: int,
        config: RelaxConfig,
        stiffness_map: NDArray[np.float32] | None = None,
    ) -> SpringMesh:
        """Hang springs between the nodes (nz, ny, nx), config.node_spacing_px apart.

        Raises
        ------
        DataError
            If a pair brings covariances: a spring pulls alike in all directions.
        """
        nz, ny, nx = grid
        size = nz * ny * nx
        rows = [sparse.csr_array((0, size))]
        lengths: list[Array] = [np.zeros((2, 0))]
        strengths: list[Array] = [np.zeros(0)]
        for pair in pairs:
            if pair.covariance is not None:
                raise DataError(
                    f"pair (z={pair.z}, d={pair.d}): springs pull alike in all directions, got "
                    "covariances; leave them out with dataclasses.replace(pair, covariance=None)"
                )
            match = pair.displacement.reshape(2, -1).astype(np.float64)
            weight = np.ones(match.shape[1])
            if pair.weight is not None:
                weight = pair.weight.ravel().astype(np.float64)
            used = np.isfinite(match).all(axis=0) & (weight > 0)
            _, my, mx = pair.displacement.shape
            here = grid_points(my, mx, match_spacing_px)[used]
            ends = [
                _values_at(points, (ny, nx), config.node_spacing_px, z * ny * nx, size)
                for z, points in ((pair.z, here), (pair.z - pair.d, here + match.T[used]))
            ]
            rows.append(ends[0] - ends[1])
            lengths.append(match[:, used])
            strengths.append(weight[used] * (match_spacing_px / REFERENCE_PX / pair.d) ** 2)
        cells = np.full((nz, ny - 1, nx - 1), config.stiffness)
        return cls(
            stiffness=cells if stiffness_map is None else cells * stiffness_map,
            poisson_ratio=config.poisson_ratio,
            difference=sparse.csr_array(sparse.vstack(rows)),
            length=np.hstack(lengths),
            strength=np.concatenate(strengths),
            huber_px=config.huber_px,
            anchor=config.anchor * (config.node_spacing_px / REFERENCE_PX) ** 2,
        )

    def forces(self, u: Array) -> Array:
        """Return the force on every node (2, nz, ny, nx), minus the gradient of the energy."""
        missing = self._missing(u)
        held = self.strength * self.huber_px
        with np.errstate(divide="ignore"):
            pull = np.minimum(self.strength, held / np.hypot(*missing)) * missing
        pulled = np.stack([self.difference.T @ part for part in pull])
        return self._elastic_forces(u) + pulled.reshape(u.shape) - self.anchor * u

    def energy(self, u: Array) -> float:
        """Return the energy of all springs, px^2."""
        stretch, limit = np.hypot(*self._missing(u)), self.huber_px
        huber = np.where(stretch < limit, stretch**2 / 2, limit * (stretch - limit / 2))
        anchor = self.anchor * float((u * u).sum()) / 2
        elastic = -float((u * self._elastic_forces(u)).sum()) / 2
        return float((self.strength * huber).sum()) + elastic + anchor

    def masses(self) -> Array:
        """Return a mass for every node (nz, ny, nx): its own stiffness, so all swing alike."""
        masses = np.full([n + k for n, k in zip(self.stiffness.shape, (0, 1, 1), strict=True)], 0.0)
        cell = square_springs(self.poisson_ratio)
        for a, corner in enumerate(_CORNERS):
            masses[corner] -= self.stiffness * cell[a, a, 0, 0]
        pulls = (self.difference.power(2)).T @ self.strength
        return masses + np.asarray(pulls).reshape(masses.shape) + self.anchor

    def _missing(self, u: Array) -> Array:
        """Measured minus present displacement of the matches (2, n)."""
        return self.length - np.stack([self.difference @ part.ravel() for part in u])

    def _elastic_forces(self, u: Array) -> Array:
        forces = np.zeros_like(u)
        cell = square_springs(self.poisson_ratio)
        for a, b in combinations(range(4), 2):
            y, x = self.stiffness * (u[_CORNERS[b]] - u[_CORNERS[a]])
            (yy, yx), (xy, xx) = cell[a, b]
            # The spring's tensor as the other end sees it is the transposed one.
            forces[_CORNERS[a]] += np.stack([yy * y + yx * x, xy * y + xx * x])
            forces[_CORNERS[b]] -= np.stack([yy * y + xy * x, yx * y + xx * x])
        return forces


def square_springs(poisson_ratio: float) -> Array:
    """Return the springs of a square cell in plane stress, Young's modulus 1.

    Returns
    -------
    float64 ndarray of shape (4, 4, 2, 2)
        Force on corner a per displacement of corner b, corners in the order 00, 01, 10, 11: the
        integral, over the cell, of the stress that one bilinear shape causes on the other.
    """
    nu = poisson_ratio
    factor = 1 / (1 - nu * nu)
    # Integrals of products of the shapes' slopes: along an axis the shapes are 1 - t and t.
    mass, slope = np.array([[2, 1], [1, 2]]) / 6, np.array([[1, -1], [-1, 1]])
    mixed = np.array([[-1, -1], [1, 1]]) / 2
    yy, xx = np.kron(slope, mass), np.kron(mass, slope)
    yx = np.kron(mixed, mixed.T)  # d/dy of the one, d/dx of the other
    shear = (1 - nu) / 2
    stress = [[yy + shear * xx, nu * yx + shear * yx.T], [nu * yx.T + shear * yx, xx + shear * yy]]
    return -factor * np.moveaxis(np.array(stress), (0, 1), (2, 3))


def fire(
    forces: Callable[[Array], Array], masses: Array, start: Array
) -> Iterator[tuple[Array, Array]]:
    """Follow the masses downhill, one time step at a time, for ever.

    Parameters
    ----------
    forces : callable
        Positions to forces, both of the shape of `start`.
    masses : float64 ndarray
        Broadcast against `start`; with the diagonal of the stiffness, time steps up to 1 are
        stable.
    start : float64 ndarray
        First positions.

    Yields
    ------
    position, force : float64 ndarray
        After each step; the force is the one at the position before the step.
    """
    u, v = start.copy(), np.zeros_like(start)
    step, mixing, downhill = _FIRST_STEP, _MIXING, 0
    while True:
        force = forces(u)
        pull = force / masses
        if float((force * v).sum()) > 0:
            downhill += 1
            if downhill > _PATIENCE_STEPS:
                step, mixing = min(step * _FASTER, _LONGEST_STEP), mixing * _LESS_MIXING
        else:
            v[:] = 0
            step, mixing, downhill = step * _SLOWER if downhill else step, _MIXING, 0
        v += step * pull
        speed, size = (np.sqrt(float((masses * a * a).sum())) for a in (v, pull))
        if size > 0:
            v += mixing * (speed / size * pull - v)
        u = u + step * v
        yield u, force


def relax_springs(mesh: SpringMesh, *, tolerance: float, max_steps: int) -> tuple[Array, int]:
    """Let a mesh come to rest from u = 0.

    Parameters
    ----------
    mesh : SpringMesh
    tolerance : float
        Length of all forces at rest, relative to that at the start.
    max_steps : int

    Returns
    -------
    u : float64 ndarray of shape (2, nz, ny, nx)
        Displacements of the nodes, px.
    steps : int

    Raises
    ------
    ConvergenceError
        If it still moves after `max_steps`.
    """
    masses = mesh.masses()
    start = np.zeros((2, *masses.shape))
    goal = tolerance * float(np.linalg.norm(mesh.forces(start)))
    before = start
    for steps, (u, force) in enumerate(fire(mesh.forces, masses, start)):
        if float(np.linalg.norm(force)) <= goal:
            break
        if steps == max_steps:
            raise ConvergenceError(
                f"after {max_steps} steps the springs pull with {np.linalg.norm(force) / goal:.1f} "
                "times the force allowed; raise max_steps or tolerance"
            )
        before = u
    return before, steps


def _values_at(
    points: Array, grid_yx: tuple[int, int], spacing: float, first: int, size: int
) -> sparse.csr_array:
    """Matrix (n, size) from all nodes to points of the section whose nodes begin at `first`."""
    nodes, shares = interpolation(grid_yx, spacing, points)
    ends = 4 * np.arange(len(points) + 1)
    return sparse.csr_array((shares.ravel(), first + nodes.ravel(), ends), (len(points), size))
