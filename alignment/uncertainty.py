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

from alignment.energy import StackEnergy, Vector, Weights
from alignment.links import residual

_SAMPLES = 8
_TOLERANCE = 0.01  # eight samples know a variance to 30 %: no need to solve them better
_PULL_REACH_PX = 80.0  # half the window in which pulls that point the same way are no chance
_LEAST_INFORMATION = 0.3  # of the typical: beside a hole few matches must not look like a big pull


def estimate_sigma(
    energy: StackEnergy,
    u: Vector,
    match_spacing_px: int,
    parts: Sequence[int],
    tied: Sequence[int],
    *,
    origin: tuple[int, int, int] = (0, 0, 0),
) -> NDArray[np.float32]:
    """Estimate the standard error of every node's place against the sections next to it.

    Parameters
    ----------
    energy : StackEnergy
    u : float64 ndarray of shape (nz, 2, ny, nx)
        Its minimum.
    match_spacing_px : int
    parts : sequence of int
        For every section the part of the stack that matches tie it to.
    tied : sequence of int
        Sections that have matches, in ascending order.
    origin : tuple of int
        Where the stack's first node lies in the whole volume.

    Returns
    -------
    float32 ndarray of shape (nz, ny, nx)
        px per component, against the mean of the tied sections before and after (at an end of a
        part, the one). NaN for a section that is not tied.
    """
    sigma = np.full(energy.grid, np.nan, np.float32)
    neighbours = _neighbours(tied, parts)
    if not neighbours:
        return sigma
    energy.evaluate(u, Weights.MAJORISE)
    energy.prepare()
    variance, fitted = np.zeros(energy.grid), 0.0
    for sample in range(_SAMPLES):
        pulls, rest = energy.random_forces(sample, origin)
        error, _ = energy.solve(pulls + rest, tolerance=_TOLERANCE)
        variance += _apart(error, neighbours) / _SAMPLES
        fitted += float((pulls * error).sum()) / _SAMPLES
    variance *= _noise(energy, u, match_spacing_px, fitted)
    variance += _apart(_pull(energy, u), neighbours)
    for z in neighbours:
        sigma[z] = np.sqrt(uniform_filter(variance[z], 3, mode="nearest"))
    return sigma


def _noise(energy: StackEnergy, u: Vector, match_spacing_px: int, fitted: float) -> float:
    """Variance of a match of weight 1, per component, from the residuals.

    By their median, so that wrong matches do not count; `fitted` degrees of freedom of the matches
    went into the fields and left no residual.
    """
    squares = []
    for links in energy.links:
        y, x = residual(
            links,
            u[links.z],
            u[links.z - links.d],
            node_spacing_px=energy.config.node_spacing_px,
            match_spacing_px=match_spacing_px,
        )
        yy, yx, xx = (1, 0, 1) if links.precision is None else links.precision
        length = yy * y * y + 2 * yx * y * x + xx * x * x
        squares.append((links.weight * length)[links.weight > 0])
    values = np.concatenate(squares)
    free = max(1 - fitted / (2 * len(values)), 0.1)
    # Median of the squared length of a 2-D normal vector: 2 ln 2 variances.
    return float(np.median(values)) / (2 * np.log(2)) / free


def _pull(energy: StackEnergy, u: Vector) -> Vector:
    """Where the matches around each node would move it, were it not for the sheet.

    At the minimum their forces are the sheets', turned around.
    """
    reach = round(_PULL_REACH_PX / energy.config.node_spacing_px)
    window = (0, 0, 2 * reach + 1, 2 * reach + 1)
    force, information = (
        uniform_filter(values, window, mode="constant")
        for values in (energy.without_matches().evaluate(u)[1], energy.information())
    )
    least = _LEAST_INFORMATION * np.median(information[information > 0])
    return np.asarray(force / np.maximum(information, least))


def _neighbours(tied: Sequence[int], parts: Sequence[int]) -> dict[int, list[int]]:
    """Return for every tied section the tied ones before and after it in its part."""
    around: dict[int, list[int]] = {}
    for low, high in pairwise(tied):
        if parts[low] == parts[high]:
            around.setdefault(low, []).append(high)
            around.setdefault(high, []).append(low)
    return around


def _apart(u: Vector, neighbours: dict[int, list[int]]) -> Vector:
    """Mean square, over the components, of each node's distance from its mean neighbour."""
    apart = np.zeros((u.shape[0], *u.shape[2:]))
    for z, others in neighbours.items():
        apart[z] = ((u[z] - u[others].mean(axis=0)) ** 2).mean(axis=0)
    return apart
