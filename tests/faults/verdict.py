"""What became of a fault: the one scale on which every trial is judged."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Verdict = Literal["correct", "detected", "resumed", "late", "unclear", "stuck", "silent"]

MEANING: dict[Verdict, str] = {
    "correct": "ended as if nothing had happened (tried again, looked up, or not concerned)",
    "detected": "a clear error that names object or unit; a resume without the fault ends right",
    "resumed": "killed; the next start ends right",
    "late": "reported success; the damage is an error only when the voxels are read",
    "unclear": "an error that names neither object nor unit; a resume ends right",
    "stuck": "did not end, or a resume without the fault fails",
    "silent": "reported success with other voxels or objects than without the fault",
}
BAD: tuple[Verdict, ...] = ("late", "unclear", "stuck", "silent")

_UNIT = re.compile(r"\bz\d{6}\b")
_CLASSES = re.compile(
    r"^(storage\.errors|alignment\.errors|alignment\.stages\.runner)\.\w+: ", re.MULTILINE
)


@dataclass(frozen=True)
class Trial:
    """One fault, and what became of it."""

    stack: str
    kind: str
    at: int
    where: str
    verdict: Verdict
    message: str = ""
    seconds: float = 0.0


def is_clear(text: str, paths: Iterable[str]) -> bool:
    """Return whether a traceback ends in an error of ours that names an object or the unit."""
    found = list(_CLASSES.finditer(text))
    if not found:
        return False
    told = text[found[-1].start() :]
    return any(path in told for path in paths) or _UNIT.search(told) is not None


def equal_voxels(found: Mapping[str, NDArray[Any]], golden: Mapping[str, NDArray[Any]]) -> bool:
    """Return whether all arrays are the same, voxel for voxel."""
    return found.keys() == golden.keys() and all(
        found[path].dtype == array.dtype and np.array_equal(found[path], array)
        for path, array in golden.items()
    )


def counts(trials: Iterable[Trial]) -> dict[str, Counter[str]]:
    """Return how often each verdict was given, by kind of fault, in order of appearance."""
    table: dict[str, Counter[str]] = {}
    for trial in trials:
        table.setdefault(trial.kind, Counter())[trial.verdict] += 1
    return table


def show(trials: Iterable[Trial]) -> str:
    """Return a table for people: one line a kind, then every trial that ended badly."""
    trials = list(trials)
    verdicts = [v for v in MEANING if any(t.verdict == v for t in trials)]
    lines = [f"{'fault':<18}{'tried':>7}" + "".join(f"{v:>10}" for v in verdicts)]
    for kind, found in counts(trials).items():
        cells = "".join(f"{found[v]:>10}" for v in verdicts)
        lines.append(f"{kind:<18}{found.total():>7}{cells}")
    bad = [t for t in trials if t.verdict in BAD]
    lines += [f"{t.verdict}: {t.kind} at {t.at}, {t.where}: {t.message[-400:]}" for t in bad[:40]]
    return "\n".join(lines)
