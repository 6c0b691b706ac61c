"""Newton's method for the robust energy of a stack.

Huber's function is quadratic up to a limit and linear beyond. Each round puts a quadratic function
in its place, finds that one's minimum as exactly as is worth while (S. C. Eisenstat, H. F. Walker,
"Choosing the forcing terms in an inexact Newton method", SIAM J. Sci. Comput. 17, 1996), and goes
there. Newton's function converges in a few rounds once the outliers are known. Where it overshoots,
the step is halved; if that does not help, the round is done with the majorising function of
iterative re-weighting, whose minimum cannot have more energy. So the energy never rises.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

import numpy as np

from alignment.energy import Energy, StackEnergy, Vector, Weights

_log = logging.getLogger(__name__)

_BELIEVED_TOLERANCE = 0.05  # of the first round, whose weights are wrong anyhow
_LOOSEST, _MARGIN = 0.1, 0.3  # of a round's solve; how much better than needed its last is
_HALVINGS = 3
_ROUNDING = 1e-12  # of the energy: what its sums may be off

Reason = Literal["converged", "nothing to do", "rounds", "rounding"]


@dataclass(frozen=True)
class Round:
    """One round: where it began, and what it cost."""

    residual: float
    """Length of the gradient relative to the reference."""
    energy: float
    steps: int
    """Of conjugate gradients."""
    weights: str
    length: float
    """Share of the quadratic function's step that was gone."""


@dataclass(frozen=True)
class Minimum:
    """Where the energy is least, and how it was found.

    Attributes
    ----------
    u : float64 ndarray of shape (nz, 2, ny, nx)
    energy : Energy
    residual : float
        Length of the gradient there, relative to the reference.
    reference : float
        Length of the gradient at 0 with every match believed.
    reason : str
        Why it stopped: "converged" to the tolerance, "nothing to do" where nothing pulls, out of
        "rounds", or no further for "rounding".
    rounds : tuple of Round
    """

    u: Vector
    energy: Energy
    residual: float
    reference: float
    reason: Reason
    rounds: tuple[Round, ...]

    @property
    def steps(self) -> int:
        """Steps of conjugate gradients in all rounds."""
        return sum(entry.steps for entry in self.rounds)


def minimise(
    energy: StackEnergy,
    start: Vector | None = None,
    *,
    held: Vector | None = None,
    reference: float | None = None,
    reduction: float = 0.0,
) -> Minimum:
    """Find the minimum of a stack's energy.

    Parameters
    ----------
    energy : StackEnergy
        Its quadratic function is Newton's at the minimum afterwards.
    start : float64 ndarray of shape (nz, 2, ny, nx), optional
        Without one, the first round believes every match: U = 0 would suspect the right ones.
    held : float64 ndarray of shape (nz, 2, ny, nx), optional
        Without a start: where the nodes are that are not free; 0 elsewhere.
    reference : float, optional
        What the gradient is measured by; the default is its length at 0 with every match believed.
    reduction : float
        Also enough: this share of the gradient at the start.

    Raises
    ------
    ConvergenceError
        If config.max_iterations steps do not solve a round.
    """
    config = energy.config
    rounds: list[Round] = []
    still = np.zeros(energy.shape) if held is None else held
    u = (still if start is None else start).copy()
    if start is None or reference is None:
        believed, gradient = energy.evaluate(still, huber_px=np.inf)
        reference = length(gradient) if reference is None else reference
        if start is None and reference > 0:
            energy.prepare()
            step, residuals = energy.solve(-gradient, tolerance=_BELIEVED_TOLERANCE)
            u = still + step
            rounds.append(Round(1.0, believed.total, len(residuals) - 1, "believed", 1.0))
    value, gradient = energy.evaluate(u, Weights.NEWTON)
    enough = max(config.tolerance, reduction * length(gradient) / reference if reference else 0.0)
    reason: Reason = "rounds"
    for _ in range(config.robust_iterations):
        residual = length(gradient) / reference if reference else 0.0
        if residual <= enough:
            reason = "converged" if reference else "nothing to do"
            break
        loose = min(_LOOSEST, residual**0.5)
        tolerance = max(loose, _MARGIN * enough / residual)
        found = _step(energy, u, value, gradient, min(tolerance, _LOOSEST), Weights.NEWTON)
        if found is None:
            found = _step(energy, u, value, gradient, _LOOSEST, Weights.MAJORISE)
        if found is None:
            reason = "rounding"
            break
        before, (u, value, gradient, entry) = value, found
        rounds.append(Round(residual, before.total, *entry))
    residual = length(gradient) / reference if reference else 0.0
    _log.info("%s at %.1e after %d rounds, %s", reason, residual, len(rounds), value)
    if reason == "rounds":
        _log.warning(
            "relaxation stopped at a residual of %.1e after %d rounds, asked for %.1e; raise "
            "relax.robust_iterations",
            *(residual, config.robust_iterations, config.tolerance),
        )
    return Minimum(u, value, residual, reference, reason, tuple(rounds))


def length(vector: Vector) -> float:
    """Return the length of a vector, with the same bits on any number of threads."""
    # Not BLAS: its sums depend on the number of threads.
    return float(np.sqrt((vector * vector).sum()))


def _step(
    energy: StackEnergy,
    u: Vector,
    value: Energy,
    gradient: Vector,
    tolerance: float,
    weights: Weights,
) -> tuple[Vector, Energy, Vector, tuple[int, str, float]] | None:
    """Go to the quadratic function's minimum, or part of the way; None if no part gains."""
    if weights is not Weights.NEWTON:
        energy.evaluate(u, weights)
    energy.prepare()
    step, residuals = energy.solve(-gradient, tolerance=tolerance)
    share = 1.0
    for _ in range(_HALVINGS + 1):
        trial = u + share * step
        after, slope = energy.evaluate(trial, Weights.NEWTON)
        if after.total <= value.total * (1 + _ROUNDING) and (
            after.total < value.total or length(slope) < length(gradient)
        ):
            return trial, after, slope, (len(residuals) - 1, weights.name.lower(), share)
        share /= 2
    energy.evaluate(u, Weights.NEWTON)
    return None
