"""What races came to, kept below ``.benchmarks/engine``: a run that was cut short goes on there."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from inference import native
from tests.benchmarks.rounds import Contest, Result, Turn, compared

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / ".benchmarks" / "engine"


@dataclass
class Entrant:
    """One way to compute a network, and what its turns took."""

    way: str
    version: str = ""
    error: float = 0.0
    """Largest difference to what Keras computes."""
    failure: str = ""
    """Why it could not take part; then there are no turns."""
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)
    peak_bytes: float = 0.0


@dataclass
class Race:
    """One network, computed by all in turns."""

    key: str
    title: str
    threads: int
    gflop: float
    """Of all convolutions as direct sums, multiplications and additions, a batch."""
    voxels: int
    """Of the output, a batch."""
    peak_gflop_s: float | None
    """Of the same number of threads, measured in the same run; None without a compiler."""
    machine: str
    sources: str
    """Digest of the engine's sources."""
    entrants: list[Entrant]

    def results(self) -> dict[str, Result]:
        """Return those that took part; the engine is what they are compared with.

        `per_s` is of turns: a turn takes 1 / per_s seconds.
        """
        turns = {
            one.way: [Turn(*pair) for pair in zip(one.wall_s, one.cpu_s, strict=True)]
            for one in self.entrants
            if one.wall_s
        }
        if "engine" not in turns:
            return {}
        contest = Contest(self.title, 1.0, {}, per=1.0)
        return {result.way: result for result in compared(contest, turns)}

    def save(self) -> None:
        """Write it down whole or not at all."""
        path = _path(self.key, self.threads)
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_suffix(".part")
        beside.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")
        beside.replace(path)


def saved(key: str, threads: int, ways: Iterable[str] = (), rounds: int = 1) -> Race | None:
    """Return an earlier race of the sources that lie here, or nothing.

    All of `ways` must have run in it, `rounds` times or more; a race in which a way failed is held
    again, since a library may be there now.
    """
    path = _path(key, threads)
    if not path.exists():
        return None
    read: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    read["entrants"] = [Entrant(**one) for one in read["entrants"]]
    race = Race(**read)
    run = {one.way for one in race.entrants if len(one.wall_s) >= rounds}
    return race if race.sources == sources() and run.issuperset(ways) else None


def sources() -> str:
    """Return a digest of the engine and its kernels."""
    found = hashlib.sha256(native.SOURCES.digest().encode())
    for path in sorted((ROOT / "inference" / "engine").rglob("*.py")):
        found.update(path.read_bytes())
    return found.hexdigest()[:16]


def _path(key: str, threads: int) -> Path:
    return FOLDER / f"{key}-{threads}.json"
