"""Fit the confidence of matches on tissue whose truth is exact, and test it on other tissue.

``python -m tests.accuracy.fit_confidence --write`` matches the stacks (about 40 CPU-minutes; kept
in ``--matches`` for the next time), fits on some sets, writes ``alignment/confidence.json``, and
tests that on the others, and a fit on the others on them.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from alignment.confidence import RIGHT_PX, STATISTICS, statistics
from alignment.confidence_model import Model
from alignment.config import PipelineConfig
from alignment.filter import judge_section
from storage.provenance import module_code
from tests.accuracy.changing import make_changing
from tests.accuracy.recipes import RECIPES
from tests.accuracy.runner import Outcome, run_stack
from tests.accuracy.sets import SETS

FIT = ("phantom", "vnc")
TEST = ("fib", "isbi")
FORMS = ("as it is", "enlarged")
"""Of a set; fib is enlarged as it is."""
GROUPS = {"phantom": 3, "vnc": 3, "fib": 8, "isbi": 8}
"""Sections that are copied; in the enlarged form `GROUPS["fib"]` of every set."""
SEEDS = {"std": 21, "hard": 22}
ENLARGED_PX = 288
"""Side of the middle of a section that is enlarged twice."""
BINS = 10

COMMAND = "python -m tests.accuracy.fit_confidence --write"
ROOT = Path(__file__).parents[2]
MODEL = ROOT / "alignment/confidence.json"
PAGE = ROOT / "docs/confidence.md"
PICTURE = ROOT / "docs/images/confidence.png"
MARKERS = ("<!-- table -->", "<!-- end of table -->")

_PENALTY = 1e-3  # on standardised weights: ties between statistics that say the same are shared
_LEAST_STEP = 200  # matches a step of the monotone curve stands for, at least
_NEVER_SURE = (0.001, 0.999)
_TAILS = (0.005, 0.015)
_FOR = ("score", "r_delta_5", "r_delta_10", "r_delta_15", "sharpness", "mirror", "overlap")
_FOR = (*_FOR, "neighbours")  # the more of these, the surer, on every tissue
_FREE = ("open",)

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


def stacks() -> Iterator[tuple[str, str, str]]:
    """Yield set, recipe and form of every stack."""
    for name in (*FIT, *TEST):
        for form in FORMS[:1] if name == "fib" else FORMS:
            for recipe in SEEDS:
                yield name, recipe, form


def collect(name: str, recipe: str, form: str, folder: Path) -> Sample:
    """Match one stack, or read what an earlier call left in `folder`."""
    config = PipelineConfig()
    used = config.model_dump_json(include={"masks", "features", "coarse", "match"})
    code = module_code("alignment.rematch")
    digest = hashlib.sha256((used + code).encode()).hexdigest()[:8]
    path = folder / f"{name}-{recipe}-{form.replace(' ', '_')}-{digest}.npz"
    if not path.exists():
        base, groups, seed = SETS[name](), GROUPS[name], SEEDS[recipe]
        if form == "enlarged":
            base, groups, seed = enlarged(base), GROUPS["fib"], seed + 100
        stack = make_changing(base, RECIPES[recipe], seed=seed, groups=groups)
        outcome = run_stack(stack, config)
        path.parent.mkdir(parents=True, exist_ok=True)
        save(path, outcome)
    pairs, spacing_px = read(path)
    return sample(pairs, spacing_px)


def enlarged(base: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the middle of each section, enlarged twice: blurred tissue of large structures."""
    first = [(n - ENLARGED_PX) // 2 for n in base.shape[1:]]
    cut = base[:, first[0] : first[0] + ENLARGED_PX, first[1] : first[1] + ENLARGED_PX]
    size = (2 * ENLARGED_PX, 2 * ENLARGED_PX)
    return np.stack([cv2.resize(one, size, interpolation=cv2.INTER_CUBIC) for one in cut])


def save(path: Path, outcome: Outcome) -> None:
    """Keep what `sample` needs of an outcome: matches that do not lie at damage, and the truth."""
    margin_px = PipelineConfig().filter.damage_margin_px
    arrays = {}
    for p in outcome.pairs:
        left = np.where(p.damage_px < margin_px, np.float32(np.nan), p.matches)
        arrays[f"{p.z}_{p.d}_matches"], arrays[f"{p.z}_{p.d}_truth"] = left, p.truth
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
    """Return the statistics and errors of the matches that pass the other filters."""
    rows, errors = [], []
    for z in sorted({z for z, _ in pairs}):
        own = {d: pairs[at, d][0] for at, d in pairs if at == z}
        links = {
            (a, b): pairs[z - a, b - a][0] for a in own for b in own if (z - a, b - a) in pairs
        }
        judged = judge_section(own, links, spacing_px=spacing_px, config=PipelineConfig().filter)
        for d, left in judged.items():
            found = statistics(left.matches, spacing_px=spacing_px, cycle_px=left.cycle_px)
            error = np.hypot(*(left.matches[:2] - pairs[z, d][1]))
            known = np.isfinite(error)
            rows.append(found[:, known].T)
            errors.append(error[known])
    return Sample(np.concatenate(rows), np.concatenate(errors))


def fit(samples: Sequence[Sample], *, made_by: str = "") -> Model:
    """Fit a model; every sample counts the same, however many matches it has.

    No statistic may count against what it means (`_FOR`): where two say nearly the same on one
    tissue, their difference says something only about that tissue.
    """
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

    bounds = [
        (None, None) if name in _FREE else (0, None) if name in _FOR else (None, 0)
        for name in STATISTICS
    ]
    start = np.zeros(scaled.shape[1])
    w = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[*bounds, (None, None)]).x
    logit = scaled @ w
    knots, probabilities = monotone(logit, right, weight)
    return Model(
        bias=float(w[-1] - (w[:-1] * mean / std).sum()),
        weights=dict(zip(STATISTICS, (w[:-1] / std).tolist(), strict=True)),
        logits=tuple(knots),
        probabilities=tuple(probabilities),
        made_by=made_by,
    )


def monotone(
    logit: Floats, right: NDArray[np.bool_], weight: Floats
) -> tuple[list[float], list[float]]:
    """Return the knots of a rising curve from logits to frequencies (isotonic regression)."""
    order = logit.argsort()
    count = max(min(len(order) // _LEAST_STEP, 30), 2)
    # The least and the most sure in finer steps: limits and weights are made of these.
    shares = np.r_[0, _TAILS, np.arange(1, count) / count, 1 - np.array(_TAILS[::-1]), 1]
    edges = np.unique((np.sort(shares) * len(order)).round().astype(int))
    steps = [
        (weight[part].sum(), weight[part] @ logit[part], weight[part] @ right[part])
        for part in np.split(order, edges[1:-1])
    ]
    pooled: list[tuple[float, float, float]] = []
    for step in steps:
        pooled.append(step)
        while len(pooled) > 1 and pooled[-2][2] / pooled[-2][0] >= pooled[-1][2] / pooled[-1][0]:
            a, b = pooled.pop(-2), pooled.pop()
            pooled.append((a[0] + b[0], a[1] + b[1], a[2] + b[2]))
    return [float(x / w) for w, x, _ in pooled], [
        float(np.clip(y / w, *_NEVER_SURE)) for w, _, y in pooled
    ]


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
    """Match, fit, test, and with --write put model, table and plot into the project."""
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m tests.accuracy.fit_confidence"
    )
    parser.add_argument("--matches", type=Path, default=Path("/tmp/confidence"))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    found = {of: collect(*of, options.matches) for of in stacks()}
    models = {
        sets: fit([s for (name, _, _), s in found.items() if name in sets], made_by=COMMAND)
        for sets in (FIT, TEST)
    }
    tables, curves = [], {}
    for sets, model in models.items():
        rows = [(" ".join(of), found[of]) for of in found if of[0] not in sets] + [
            (f"**{name}**", merged([s for of, s in found.items() if of[0] == name]))
            for name in (*FIT, *TEST)
            if name not in sets
        ]
        judged = {label: (s, predict(model, s.statistics)) for label, s in rows}
        tables.append(table(sets, judged))
        for label, (s, predicted) in judged.items():
            if label.startswith("**"):
                curves[f"{label.strip('*')}, fitted on {' and '.join(sets)}"] = calibration(
                    predicted, s.right
                )
    text = "\n".join(tables)
    print(text)
    if options.write:
        MODEL.write_text(models[FIT].text(), encoding="utf-8")
        replace_between(PAGE, text)
        draw(curves, PICTURE)


def merged(samples: Sequence[Sample]) -> Sample:
    """Return the matches of all."""
    return Sample(
        np.concatenate([s.statistics for s in samples]),
        np.concatenate([s.error_px for s in samples]),
    )


def table(sets: Sequence[str], judged: dict[str, tuple[Sample, Floats]]) -> str:
    """Return the lines of the page on one model, tested on sets that it was not fitted on."""
    lines = [
        f"Fitted on {' and '.join(sets)}:",
        "",
        "| tested on | matches | right | predicted | calibration error | Brier score | by chance |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for label, (s, predicted) in judged.items():
        share = s.right.mean()
        lines.append(
            f"| {label} | {len(s.right):,} | {share:.3f} | {predicted.mean():.3f} | "
            f"{calibration(predicted, s.right).error:.3f} | "
            f"{np.square(predicted - s.right).mean():.3f} | {share * (1 - share):.3f} |"
        )
    return "\n".join([*lines, ""])


def replace_between(page: Path, text: str) -> None:
    """Put a text between the two markers of a page."""
    before, rest = page.read_text(encoding="utf-8").split(MARKERS[0])
    after = rest.split(MARKERS[1])[1]
    page.write_text(f"{before}{MARKERS[0]}\n\n{text}\n{MARKERS[1]}{after}", encoding="utf-8")


def draw(curves: dict[str, Calibration], path: Path) -> None:
    """Draw predicted against observed frequencies."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 5), layout="constrained")
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=1)
    for (label, curve), marker in zip(curves.items(), "osD^", strict=False):
        axes.plot(
            curve.predicted,
            curve.observed,
            marker=marker,
            markersize=4,
            linewidth=1,
            label=f"{label}: {curve.error:.3f}",
        )
    axes.set_xlabel("predicted probability that a match is right to 1 px")
    axes.set_ylabel("share of such matches that are")
    axes.legend(title="tissue: expected calibration error", fontsize=8, title_fontsize=8)
    axes.set_aspect("equal")
    figure.savefig(path, dpi=110)
    plt.close(figure)


if __name__ == "__main__":
    main()
