"""How far the relaxed place of a node may be off: `sigma`, in px.

Around its minimum the energy is the negative log-probability of a Gaussian, up to the scale of the
noise: with A its matrix, errors of the displacements have covariance ``noise * A^-1``. Forces that
are drawn with covariance A and solved for are samples of it [1]_; they hold what the matches know,
how far the sheets carry that into holes, and how sections hang together. The noise comes from the
residuals. To this random part is added the pull that the matches around a node still exert together
at the minimum, against the sheet: were the sheet too stiff there, the node would be off by it.

References
----------
.. [1] G. Papandreou, A. L. Yuille, "Gaussian sampling by local perturbations", NIPS 2010.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter

from alignment.energy import StackEnergy
from alignment.multigrid import Multigrid, solve

Vector = NDArray[np.float64]

_SAMPLES = 8
_TOLERANCE = 0.01  # eight samples know a variance to 30 %: no need to solve them better
_PULL_REACH_PX = 80.0  # half the window in which pulls that point the same way are no chance
_LEAST_INFORMATION = 0.3  # of the typical: beside a hole few matches must not look like a big pull


def estimate_sigma(
    energy: StackEnergy, u: Vector, robust: Vector, parts: Sequence[int], tied: Sequence[int]
) -> NDArray[np.float32]:
    """Estimate the standard error of every node's place against the sections next to it.

    Parameters
    ----------
    energy : StackEnergy
    u : float64 ndarray of shape (2 * nz * ny * nx,)
        Its minimum.
    robust : float64 ndarray of shape (n,)
        Weights of the matches there.
    parts : sequence of int
        For every section the part of the stack that matches tie it to.
    tied : sequence of int
        Sections that have matches, in ascending order.

    Returns
    -------
    float32 ndarray of shape (nz, ny, nx)
        px per component, against the mean of the tied sections before and after (at an end of a
        part, the one). NaN for a section that is not tied.
    """
    links, grid = energy.links, energy.sheets.grid
    sigma = np.full(grid, np.nan, np.float32)
    neighbours = _neighbours(tied, parts)
    if not neighbours:
        return sigma
    matrix = energy.matrix(robust)
    preconditioner = Multigrid.of(matrix, grid)
    variance, fitted = np.zeros(grid), 0.0
    for sample in range(_SAMPLES):
        random = np.random.default_rng(sample)
        pulls = links.random_forces(robust, random)
        error, _ = solve(
            matrix,
            pulls + energy.sheets.random_forces(random),
            np.zeros_like(u),
            preconditioner,
            tolerance=_TOLERANCE,
            max_iterations=energy.config.max_iterations,
        )
        variance += _apart(error, grid, neighbours) / _SAMPLES
        fitted += float((pulls * error).sum()) / _SAMPLES
    variance *= _noise(energy, u, fitted)
    variance += _apart(_pull(energy, u, robust), grid, neighbours)
    for z in neighbours:
        sigma[z] = np.sqrt(uniform_filter(variance[z], 3, mode="nearest"))
    return sigma


def _noise(energy: StackEnergy, u: Vector, fitted: float) -> float:
    """Variance of a match of weight 1, per component, from the residuals.

    By their median, so that wrong matches do not count; `fitted` degrees of freedom of the matches
    went into the fields and left no residual.
    """
    links = energy.links
    squares = links.weight * links.length(links.residual(u)) ** 2
    free = max(1 - fitted / (2 * len(squares)), 0.1)
    # Median of the squared length of a 2-D normal vector: 2 ln 2 variances.
    return float(np.median(squares)) / (2 * np.log(2)) / free


def _pull(energy: StackEnergy, u: Vector, robust: Vector) -> Vector:
    """Where the matches around each node would move it, were it not for the sheet."""
    grid, links = energy.sheets.grid, energy.links
    reach = round(_PULL_REACH_PX / energy.config.node_spacing_px)
    window = (0, 2 * reach + 1, 2 * reach + 1, 0)
    force, information = (
        uniform_filter(values.reshape(*grid, 2), window, mode="constant")
        for values in (
            links.forces(robust, -links.residual(u)),
            links.information(robust).diagonal(),
        )
    )
    least = _LEAST_INFORMATION * np.median(information[information > 0])
    return np.asarray(force / np.maximum(information, least)).ravel()


def _neighbours(tied: Sequence[int], parts: Sequence[int]) -> dict[int, list[int]]:
    """Return for every tied section the tied ones before and after it in its part."""
    around: dict[int, list[int]] = {}
    for low, high in pairwise(tied):
        if parts[low] == parts[high]:
            around.setdefault(low, []).append(high)
            around.setdefault(high, []).append(low)
    return around


def _apart(u: Vector, grid: tuple[int, int, int], neighbours: dict[int, list[int]]) -> Vector:
    """Mean square, over the components, of each node's distance from its mean neighbour."""
    place = u.reshape(*grid, 2)
    apart = np.zeros(grid)
    for z, others in neighbours.items():
        apart[z] = ((place[z] - place[others].mean(axis=0)) ** 2).mean(axis=-1)
    return apart
