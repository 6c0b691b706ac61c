"""Races as markdown: a row a network, and a row for every way to compute it."""

from __future__ import annotations

from collections.abc import Sequence

from tests.benchmarks.engine.race import WAYS
from tests.benchmarks.engine.results import Entrant, Race
from tests.benchmarks.rounds import Result


def heading(races: Sequence[Race]) -> str:
    """Return where, with what and with how many threads; the peak is the highest that was seen."""
    versions = {
        one.way.partition(",")[0]: one.version
        for race in races
        for one in race.entrants
        if one.version and one.way != "engine"
    }
    said = ", ".join(f"{library} {version}" for library, version in versions.items())
    vectors = {one.version for race in races for one in race.entrants if one.way == "engine"}
    return (
        f"{races[-1].machine} {said}; the engine's vectors: {', '.join(sorted(vectors))}. "
        f"{peak_in_words(races)}"
    )


def peak_in_words(races: Sequence[Race]) -> str:
    """Return threads and peak."""
    peak = highest_peak(races)
    known = f"{peak:.0f} GFLOP/s" if peak else "unknown: no C++ compiler"
    return f"Threads: {races[0].threads}. Measured peak in float32: {known}."


def highest_peak(races: Sequence[Race]) -> float | None:
    """Return the highest peak of all races: none of them computes faster than the machine can."""
    return max((race.peak_gflop_s for race in races if race.peak_gflop_s), default=None)


def summary(races: Sequence[Race]) -> str:
    """Return how many times as long each way takes as the engine, (by processor time)."""
    named = [*WAYS, *(one.way for race in races for one in race.entrants)]
    ways = [way for way in dict.fromkeys(named) if way != "engine" and _took_part(way, races)]
    lines = [
        f"| network | GFLOP | engine, s | {' | '.join(ways)} |",
        f"|---|--:|--:|{'--:|' * len(ways)}",
    ]
    for race in races:
        results = race.results()
        if not results:
            lines.append(f"| {race.title} | {race.gflop:.0f} | failed |{' |' * len(ways)}")
            continue
        cells = [_times(results[way]) if way in results else "" for way in ways]
        engine = 1 / results["engine"].per_s
        lines.append(f"| {race.title} | {race.gflop:.0f} | {engine:.3f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _took_part(way: str, races: Sequence[Race]) -> bool:
    return any(one.way == way for race in races for one in race.entrants)


def _times(result: Result) -> str:
    return f"{1 / result.ratio:.2f} ({1 / result.cpu_ratio:.2f})"


def details(races: Sequence[Race]) -> str:
    """Return a row for every way; who could not take part has one that says why."""
    lines = [
        "| network | way | s | CPU-s | times the engine's s | lowest ... highest "
        "| times its CPU-s | GFLOP/s | % of the peak | Mvoxel/s | memory, GB | difference |",
        "|---|---|--:|--:|--:|---|--:|--:|--:|--:|--:|--:|",
    ]
    peak = highest_peak(races)
    for race in races:
        results = race.results()
        for one in race.entrants:
            if one.way in results:
                row = _row(race, one, results[one.way], peak)
            else:
                why = one.failure.replace("|", "/").replace("\n", " ") or "the engine failed"
                row = f"| {race.title} | {one.way} | {why} |{' |' * 9}"
            lines.append(row)
    return "\n".join(lines)


def _row(race: Race, one: Entrant, result: Result, peak: float | None) -> str:
    rate = race.gflop * result.per_s
    share = f"{100 * rate / peak:.0f}" if peak else ""
    return (
        f"| {race.title} | {one.way} | {1 / result.per_s:.3f} | {1 / result.per_cpu_s:.3f} "
        f"| {1 / result.ratio:.2f} | {1 / result.highest:.2f} ... {1 / result.lowest:.2f} "
        f"| {1 / result.cpu_ratio:.2f} | {rate:.0f} | {share} "
        f"| {race.voxels * result.per_s / 1e6:.3g} | {one.peak_bytes / 1e9:.1f} "
        f"| {one.error:.0e} |"
    )
