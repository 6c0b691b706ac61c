"""Fit boosted regression stumps to a small made-up set; leave the error on points not fitted to.

A point takes some milliseconds, so this imports little.
"""

import json
import math
import random
import sys

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


def error_of(trees: int, rate: float, leaf: int, keep: float) -> float:
    """Return the root mean square error on points that were held out."""
    fitted, held_out = sample(FITTED, seed=1), sample(HELD_OUT, seed=2)
    left, outside = [y for _, y in fitted], [y for _, y in held_out]
    draw = random.Random(0)
    for _ in range(trees):
        kept = draw.sample(range(FITTED), round(keep * FITTED))
        cut, low, high = stump([(fitted[k][0], left[k]) for k in kept], leaf)
        for points, residuals in ((fitted, left), (held_out, outside)):
            for k, (x, _) in enumerate(points):
                residuals[k] -= rate * (low if x < cut else high)
    return math.sqrt(sum(y * y for y in outside) / HELD_OUT)


def main() -> None:
    """Fit with the settings of the command line, each as --name=value."""
    given = {name: float(text) for name, text in (word[2:].split("=") for word in sys.argv[1:])}
    error = error_of(int(given["trees"]), given["rate"], int(given["leaf"]), given["keep"])
    with open("result.json", "w") as file:  # noqa: PTH123
        json.dump({"error": error}, file)


if __name__ == "__main__":
    main()
