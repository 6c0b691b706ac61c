"""The tables of docs/nccnet.md: how often a match is false, by how sections are matched.

``python -m tests.models.table FOLDER --model NAME=PATH ...`` counts on the stacks below, keeps what
it has counted in FOLDER, and goes on there; ``--write`` puts the tables and the picture into the
page. A model is left out on the stack whose name follows it: ``vnc=PATH@vnc``.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.models.train import THREADS

os.environ.update(THREADS)

import cv2
import numpy as np
from rich.console import Console

from alignment.learning.evaluation import (
    EvaluationConfig,
    Matches,
    evaluate,
    false_rate,
    rate_difference,
    rejected_at_zero_false,
    rejection_curve,
)
from alignment.learning.stacks import Stack, open_stack
from alignment.learning.ways import band_pass, raw, remembered, tuned_band
from inference.model import FeatureTransform
from inference.model_file import digest
from inference.transform import load_transform
from tests.accuracy.sets import DATA
from tests.pages import write_table

MATCHES, TUNING, RADIUS_PX = 10_000, 2_000, 48
CURVES_PX = 160
SHOWN = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1)
"""Shares of right matches that are rejected, at which curves are told."""
say = Console(stderr=True).print


@dataclass(frozen=True)
class Case:
    """A stack to count on, and the one that the band-pass is tuned on."""

    file: str
    mip: int
    about: str
    templates_px: tuple[int, ...]
    tuned_on: str

    def open(self) -> Stack:
        """Open it at its mip."""
        return open_stack(str((DATA / self.file).resolve()), self.mip)


CASES = {
    "vnc": Case("vnc_stack1/raw.tif", 1, "9.2 nm", (96, 160, 224), "isbi"),
    "isbi": Case("isbi2012_test/raw.tif", 1, "8 nm", (96, 160), "vnc"),
    "aligntk": Case(
        "aligntk_z00-07/reference_aligned_raw.tif", 0, "about 35 nm", (96, 160, 224), "vnc"
    ),
}
DISTANCES = (1, 2)


def main() -> None:
    """Count, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", action="append", default=[], help="NAME=PATH[@STACK]")
    parser.add_argument("--case", action="append", choices=list(CASES))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    kept = Kept(options.folder)
    names = options.case or list(CASES)
    bands = {name: bands_of(name, kept) for name in names}
    found = {
        (name, d, px): cell(name, d, px, bands[name], options.model, kept)
        for name in names
        for d in DISTANCES
        for px in CASES[name].templates_px
    }
    tables = {
        "bands": bands_told(bands),
        "false matches": rates(found),
        "gains": gains(found),
        "rejected": rejected(found),
        "curves": curves(found),
    }
    for title, table in tables.items():
        print(f"\n{title}\n\n{table}")
        if options.write:
            write_table("nccnet.md", title, table)


class Kept:
    """What was counted, by what it was counted of: one file each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, about: Mapping[str, Any], suffix: str) -> Path:
        """Return where it is, or would be."""
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:16]
        return self.folder / f"{key}{suffix}"


Band = tuple[float, float]


def bands_of(name: str, kept: Kept) -> dict[str, Band]:
    """Return the band that was tuned elsewhere, and the best one of the stack itself."""
    return {
        "band-pass": band_of(CASES[name].tuned_on, kept),
        "band-pass, tuned here": band_of(name, kept),
    }


def bands_told(bands: Mapping[str, Mapping[str, Band]]) -> str:
    """Return a sentence with the bands."""
    told = [
        f"{name} {ways['band-pass'][0]:g} to {ways['band-pass'][1]:g} px (tuned on "
        f"{CASES[name].tuned_on}), {ways['band-pass, tuned here'][0]:g} to "
        f"{ways['band-pass, tuned here'][1]:g} px here"
        for name, ways in bands.items()
    ]
    return f"Bands: {'; '.join(told)}."


def band_of(name: str, kept: Kept) -> Band:
    """Return the band with the fewest false matches between next-but-one sections of a stack."""
    settings = EvaluationConfig(
        template_px=96, search_radius_px=RADIUS_PX, distance=2, matches=TUNING
    )
    path = kept.path({"tuned": name, **settings.model_dump()}, ".json")
    if not path.exists():
        say(f"tuning the band-pass on {name}")
        band, _ = tuned_band(CASES[name].open(), settings)
        path.write_text(json.dumps(band))
    fine, coarse = json.loads(path.read_text())
    return fine, coarse


def ways_of(
    name: str, bands: Mapping[str, Band], models: Sequence[str]
) -> dict[str, tuple[str, FeatureTransform | Path]]:
    """Return what is compared on a stack, each with what tells it apart."""
    found: dict[str, tuple[str, FeatureTransform | Path]] = {"raw": ("raw", raw)}
    for title, band in bands.items():
        named = f"{title}: {band[0]:g} to {band[1]:g} px"
        found[named] = (f"band {band}", band_pass(*band))
    for model in models:
        title, _, rest = model.partition("=")
        file, _, left_out = rest.partition("@")
        if left_out != name:
            found[title] = (digest(Path(file).read_bytes()), Path(file))
    return found


_REMEMBERED: dict[str, FeatureTransform] = {}


def cell(
    name: str,
    distance: int,
    template_px: int,
    bands: Mapping[str, Band],
    models: Sequence[str],
    kept: Kept,
) -> dict[str, Matches]:
    """Return the matches of every way in one cell of the table; same templates for all."""
    config = EvaluationConfig(
        template_px=template_px, search_radius_px=RADIUS_PX, distance=distance, matches=MATCHES
    )
    found, lacking, paths = {}, {}, {}
    for title, (identity, way) in ways_of(name, bands, models).items():
        about = {"case": asdict(CASES[name]), "way": identity, **config.model_dump()}
        paths[title] = kept.path(about, ".npz")
        if not paths[title].exists():
            if identity not in _REMEMBERED:
                made = load_transform(way) if isinstance(way, Path) else way
                _REMEMBERED[identity] = remembered(made)
            lacking[title] = _REMEMBERED[identity]
    if lacking:
        say(f"{name}, {distance} apart, {template_px} px: {', '.join(lacking)}")
        for title, matches in evaluate(CASES[name].open(), lacking, config).items():
            np.savez_compressed(paths[title], **asdict(matches))
    for title, path in paths.items():
        with np.load(path) as stored:
            found[title] = Matches(**stored)
    return found


Found = Mapping[tuple[str, int, int], Mapping[str, Matches]]
TOLERANCE_PX = EvaluationConfig().tolerance_px


def rates(found: Found) -> str:
    """Return the share of false matches by cell and way, with 95 % intervals."""

    def told(matches: Matches, _: Matches) -> str:
        rate = false_rate(matches, TOLERANCE_PX)
        return f"{rate.share:.2%} ({rate.low * 100:.2f}-{rate.high * 100:.2f})"

    return _by_way(found, told)


def gains(found: Found) -> str:
    """Return by how much networks lie below the band-pass that was tuned elsewhere."""

    def told(matches: Matches, band: Matches) -> str:
        mean, low, high = rate_difference(band, matches, TOLERANCE_PX)
        return f"{mean:.2%} ({low * 100:.2f} to {high * 100:.2f})"

    networks = {
        cell: {way: m for way, m in ways.items() if not way.startswith(("raw", "band-pass, "))}
        for cell, ways in found.items()
    }
    return _by_way(networks, told, without=("band-pass",))


def rejected(found: Found) -> str:
    """Return which share of right matches goes until no false one is left, by r_delta."""
    return _by_way(found, lambda matches, _: f"{rejected_at_zero_false(matches, TOLERANCE_PX):.1%}")


def curves(found: Found) -> str:
    """Return which share of all matches stays false where so many right ones are rejected."""
    heads = " | ".join(f"{share:.1%}" for share in SHOWN)
    lines = [
        f"| stack | apart | template | way | {heads} |",
        f"|---|--:|--:|---|{'--:|' * len(SHOWN)}",
    ]
    for (name, distance, px), ways in found.items():
        if px != CURVES_PX:
            continue
        for way, matches in ways.items():
            gone, left = rejection_curve(matches, TOLERANCE_PX)
            # The last threshold that rejects no more right matches than that.
            at = [np.searchsorted(gone, share, side="right") - 1 for share in SHOWN]
            told = " | ".join(f"{left[k]:.3%}" for k in at)
            lines.append(f"| {name} | {distance} | {px} px | {_short(way)} | {told} |")
    return "\n".join(lines)


def _by_way(
    found: Found, tell: Callable[[Matches, Matches], str], *, without: Sequence[str] = ()
) -> str:
    """Return a row for each cell and a column for each way."""
    names = dict.fromkeys(_short(way) for ways in found.values() for way in ways)
    shown = [name for name in names if name not in without]
    lines = [
        f"| stack | apart | template | {' | '.join(shown)} |",
        f"|---|--:|--:|{'--:|' * len(shown)}",
    ]
    for (name, distance, px), ways in found.items():
        matches_of = {_short(way): matches for way, matches in ways.items()}
        band = matches_of["band-pass"]
        told = [tell(matches_of[way], band) if way in matches_of else "" for way in shown]
        about = f"{name}, {CASES[name].about}"
        lines.append(f"| {about} | {distance} | {px} px | {' | '.join(told)} |")
    return "\n".join(lines)


def _short(way: str) -> str:
    """Return a way without its band, which differs from stack to stack."""
    return way.partition(":")[0]


if __name__ == "__main__":
    main()
