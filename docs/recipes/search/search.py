"""Fit boosted regression stumps to a small made-up set; leave the error on points not fitted to."""

import argparse
import json
import math
import random
from pathlib import Path

FITTED, HELD_OUT = 48, 48


def sample(count: int, seed: int) -> list[tuple[float, float]]:
    """Return noisy points of a curve with a step in it."""
    draw = random.Random(seed)
    xs = [draw.random() for _ in range(count)]
    return [(x, math.sin(6 * x) + (x > 0.6) + draw.gauss(0, 0.15)) for x in xs]


def stump(points: list[tuple[float, float]], leaf: int) -> tuple[float, float, float]:
    """Return the cut, and the values left and right of it, with the least squared error."""
    ordered = sorted(points)
    total, count = sum(y for _, y in ordered), len(ordered)
    best, left = (-1.0, ordered[0][0], total / count, total / count), 0.0
    for k in range(1, count):
        left += ordered[k - 1][1]
        if leaf <= k <= count - leaf:
            gain = left**2 / k + (total - left) ** 2 / (count - k)
            if gain > best[0]:
                cut = (ordered[k - 1][0] + ordered[k][0]) / 2
                best = (gain, cut, left / k, (total - left) / (count - k))
    return best[1:]


def main() -> None:
    """Fit with the given settings."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trees", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--leaf", type=int, required=True)
    parser.add_argument("--keep", type=float, required=True)
    given = parser.parse_args()
    fitted, held_out = sample(FITTED, seed=1), sample(HELD_OUT, seed=2)
    draw, trees = random.Random(0), []

    def predict(x: float) -> float:
        return sum(given.rate * (low if x < cut else high) for cut, low, high in trees)

    for _ in range(given.trees):
        kept = draw.sample(fitted, round(given.keep * FITTED))
        trees.append(stump([(x, y - predict(x)) for x, y in kept], given.leaf))
    error = math.sqrt(sum((y - predict(x)) ** 2 for x, y in held_out) / HELD_OUT)
    Path("result.json").write_text(json.dumps({"error": error}))


if __name__ == "__main__":
    main()
