"""Fit the confidence of matches on tissue whose truth is exact, and test it on other tissue.

``python -m tests.accuracy.fit_confidence --write`` matches the stacks (about 40 CPU-minutes; kept
in ``--matches`` for the next time), fits on some sets, writes ``alignment/confidence.json``, and
tests that on the others, and a fit on the others on them.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from alignment.confidence import RIGHT_PX, STATISTICS, Model, statistics
from alignment.config import PipelineConfig
from alignment.filter import cycle_lengths
from tests.accuracy.changing import make_changing
from tests.accuracy.recipes import RECIPES
from tests.accuracy.runner import Outcome, run_stack
from tests.accuracy.sets import SETS

FIT = ("phantom", "vnc")
TEST = ("fib", "isbi")
GROUPS = {"phantom": 3, "vnc": 3, "fib": 8, "isbi": 8}
SEEDS = {"std": 21, "hard": 22}
BINS = 10

_PENALTY = 1e-3  # on standardised weights: ties between statistics that say the same are shared
_LEAST_STEP = 200  # matches a step of the monotone curve stands for, at least

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """Matches of one stack with their truth."""

    statistics: Floats
    """(n, len(STATISTICS))."""
    error_px: Floats
    """(n,): length of the error, px at mip 0."""

    @property
    def right(self) -> NDArray[np.bool_]:
        """(n,): nearer to the truth than `RIGHT_PX`."""
        return self.error_px <= RIGHT_PX


def collect(name: str, recipe: str, folder: Path) -> Sample:
    """Match the stack of one set and recipe, or read what an earlier call left in `folder`."""
    config = PipelineConfig()
    used = config.model_dump_json(include={"masks", "features", "coarse", "match"})
    digest = hashlib.sha256(used.encode()).hexdigest()[:8]
    path = folder / f"{name}-{recipe}-{digest}.npz"
    if not path.exists():
        stack = make_changing(
            SETS[name](), RECIPES[recipe], seed=SEEDS[recipe], groups=GROUPS[name]
        )
        outcome = run_stack(stack, config)
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path, outcome)
    pairs, spacing_px = read(path)
    return sample(pairs, spacing_px)


def save(path: Path, outcome: Outcome) -> None:
    """Keep what `sample` needs of an outcome."""
    arrays = {
        f"{p.z}_{p.d}_{name}": values
        for p in outcome.pairs
        for name, values in (("matches", p.matches), ("truth", p.truth))
    }
    np.savez_compressed(path, spacing_px=outcome.spacing_px, **arrays)


Pairs = dict[tuple[int, int], tuple[NDArray[np.float32], Floats]]
"""By (z, d): matches (len(CHANNELS), ny, nx) and truth (2, ny, nx), px at mip 0."""


def read(path: Path) -> tuple[Pairs, int]:
    """Return the pairs of a file of `save`, and the distance of the nodes, px."""
    with np.load(path) as stored:
        keys = sorted({tuple(map(int, k.split("_")[:2])) for k in stored.files if k[0].isdigit()})
        pairs = {(z, d): (stored[f"{z}_{d}_matches"], stored[f"{z}_{d}_truth"]) for z, d in keys}
        return pairs, int(stored["spacing_px"])


def sample(pairs: Pairs, spacing_px: int) -> Sample:
    """Return the statistics and errors of all matches whose truth is known."""
    rows, errors = [], []
    for z in sorted({z for z, _ in pairs}):
        own = {d: pairs[at, d][0] for at, d in pairs if at == z}
        links = {
            (a, b): pairs[z - a, b - a][0] for a in own for b in own if (z - a, b - a) in pairs
        }
        cycles = cycle_lengths(own, links, spacing_px=spacing_px)
        for d, matches in own.items():
            found = statistics(matches, spacing_px=spacing_px, cycle_px=cycles[d])
            error = np.hypot(*(matches[:2] - pairs[z, d][1]))
            known = np.isfinite(error)
            rows.append(found[:, known].T)
            errors.append(error[known])
    return Sample(np.concatenate(rows), np.concatenate(errors))


def fit(samples: Sequence[Sample]) -> Model:
    """Fit a model; every sample counts the same, however many matches it has."""
    x = np.concatenate([s.statistics for s in samples])
    right = np.concatenate([s.right for s in samples])
    weight = np.concatenate([np.full(len(s.right), 1 / len(s.right)) for s in samples])
    weight /= weight.sum()
    mean = weight @ x
    std = np.sqrt(weight @ (x - mean) ** 2) + 1e-9
    scaled = np.column_stack([(x - mean) / std, np.ones(len(x))])
    sign = np.where(right, 1.0, -1.0)

    def loss(w: Floats) -> tuple[float, Floats]:
        margin = sign * (scaled @ w)
        slope = -weight * sign / (1 + np.exp(margin))
        inner = np.r_[w[:-1], 0]
        value = weight @ np.logaddexp(0, -margin) + _PENALTY / 2 * inner @ inner
        return float(value), scaled.T @ slope + _PENALTY * inner

    w = minimize(loss, np.zeros(scaled.shape[1]), jac=True, method="L-BFGS-B").x
    logit = scaled @ w
    knots, probabilities = monotone(logit, right, weight)
    return Model(
        bias=float(w[-1] - (w[:-1] * mean / std).sum()),
        weights=dict(zip(STATISTICS, (w[:-1] / std).tolist(), strict=True)),
        logits=tuple(knots),
        probabilities=tuple(probabilities),
    )


def monotone(
    logit: Floats, right: NDArray[np.bool_], weight: Floats
) -> tuple[list[float], list[float]]:
    """Return the knots of a rising curve from logits to frequencies (isotonic regression)."""
    order = logit.argsort()
    count = max(min(len(order) // _LEAST_STEP, 30), 2)
    steps = [
        (weight[part].sum(), weight[part] @ logit[part], weight[part] @ right[part])
        for part in np.array_split(order, count)
    ]
    pooled: list[tuple[float, float, float]] = []
    for step in steps:
        pooled.append(step)
        while len(pooled) > 1 and pooled[-2][2] / pooled[-2][0] >= pooled[-1][2] / pooled[-1][0]:
            a, b = pooled.pop(-2), pooled.pop()
            pooled.append((a[0] + b[0], a[1] + b[1], a[2] + b[2]))
    return [float(x / w) for w, x, _ in pooled], [float(y / w) for w, _, y in pooled]


class Calibration(NamedTuple):
    """Predicted against observed frequencies, by bins of equal count."""

    predicted: Floats
    observed: Floats
    count: NDArray[np.intp]

    @property
    def error(self) -> float:
        """Expected calibration error: mean distance, weighted by count."""
        share = self.count / self.count.sum()
        return float(share @ np.abs(self.predicted - self.observed))


def calibration(predicted: Floats, right: NDArray[np.bool_]) -> Calibration:
    """Compare predictions with what came."""
    parts = [part for part in np.array_split(predicted.argsort(), BINS) if part.size]
    return Calibration(
        np.array([predicted[part].mean() for part in parts]),
        np.array([right[part].mean() for part in parts]),
        np.array([part.size for part in parts]),
    )


def predict(model: Model, statistics: Floats) -> Floats:
    """Return the model's probabilities (n,) for statistics (n, len(STATISTICS))."""
    weights = np.array([model.weights[name] for name in STATISTICS])
    return np.interp(statistics @ weights + model.bias, model.logits, model.probabilities)


def main() -> None:
    """Match, fit, test, and with --write put the model into the package."""
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m tests.accuracy.fit_confidence"
    )
    parser.add_argument("--matches", type=Path, default=Path("/tmp/confidence"))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    found = {
        (name, recipe): collect(name, recipe, options.matches)
        for name in (*FIT, *TEST)
        for recipe in SEEDS
    }
    for fitted, tested in ((FIT, TEST), (TEST, FIT)):
        model = fit([s for (name, _), s in found.items() if name in fitted])
        for (name, recipe), s in found.items():
            c = calibration(predict(model, s.statistics), s.right)
            print(fitted, name, recipe, len(s.right), s.right.mean().round(3), round(c.error, 4))


if __name__ == "__main__":
    main()
