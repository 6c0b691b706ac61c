"""The tables of tuning in docs/accuracy.md: what other settings of matching would give.

``python -m tests.accuracy.tuning`` (a quarter of an hour on two cores) matches a few sections with
the defaults and with one setting changed at a time, prints the table and writes it into the page.
Sections are placed by their true affines, and nothing is filtered: only matching is compared.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import cv2

from alignment.config import FeaturesConfig, MatchLevel, PipelineConfig
from tests.accuracy.match_table import PAGE, SEED
from tests.accuracy.measures import errors, kept, only
from tests.accuracy.recipes import RECIPES
from tests.accuracy.runner import run_stack
from tests.accuracy.sets import SETS, missing
from tests.accuracy.stacks import KnownStack, TruthKind, make_stack

BEGIN, END = "<!-- table of tuning: begin -->", "<!-- table of tuning: end -->"
STACKS: tuple[tuple[str, TruthKind, str, int], ...] = (
    ("vnc", "twins", "std", 3),
    ("phantom", "neighbours", "std", 4),
    ("fib", "twins", "std", 6),
    ("isbi", "twins", "hard", 6),
)
"""Sets, and how many of their sections. Settings were chosen by the first two."""

BANDS = ((0.7, 12.0), (1.5, 8.0), (1.5, 20.0), (2.0, 12.0))
"""Sigmas of the band-pass, fine and coarse, px."""
ROUNDS: dict[str, tuple[tuple[int, int], ...]] = {
    "none": (),
    "64 at mip 1, 160": ((1, 64), (0, 160)),
    "96 at mip 1, 160": ((1, 96), (0, 160)),
    "2 x 64 at mip 1, 96": ((1, 64), (1, 64), (0, 96)),
    "2 x 64 at mip 1, 128": ((1, 64), (1, 64), (0, 128)),
    "2 x 64 at mip 1, 192": ((1, 64), (1, 64), (0, 192)),
}
"""Mip and side of the template, px at that mip, of each round."""
SMOOTHINGS = (1.0, 2.0)


def variants() -> Iterator[tuple[str, PipelineConfig]]:
    """Yield the defaults, and each other choice with its name."""
    default = PipelineConfig()
    yield "the defaults", default
    for fine, coarse in BANDS:
        band = FeaturesConfig(sigma_fine_px=fine, sigma_coarse_px=coarse)
        yield f"band {fine} ... {coarse} px", default.model_copy(update={"features": band})
    for name, rounds in ROUNDS.items():
        refine = tuple(
            MatchLevel(mip=mip, template_px=side, search_radius_px=6, node_spacing_px=32 >> mip)
            for mip, side in rounds
        )
        match = default.match.model_copy(update={"refine": refine})
        yield f"rounds: {name}", default.model_copy(update={"match": match})
    for sigma in SMOOTHINGS:
        match = default.match.model_copy(update={"refine_smoothing_nodes": sigma})
        yield f"smoothing {sigma} nodes", default.model_copy(update={"match": match})


def cell(stack: KnownStack, config: PipelineConfig) -> str:
    """Return median / p95 px, false matches, and cost."""
    outcome = run_stack(stack, config, coarse="true")
    found = errors(outcome, kept(outcome, only()))
    cost = outcome.match_cpu_s / len(outcome.pairs)
    return f"{found.median:.2f} / {found.p95:.2f}, {100 * found.false:.2f} %, {cost:.2f} s"


def main() -> None:
    """Run all variants and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.accuracy.tuning")
    parser.parse_args()
    cv2.setNumThreads(1)
    stacks = {}
    for name, truth, recipe, sections in STACKS:
        lacks = missing(name)
        if lacks:
            raise SystemExit(f"{name}: {lacks}")
        base = SETS[name]()[:sections]
        stacks[f"{name} {truth} {recipe}"] = make_stack(base, truth, RECIPES[recipe], seed=SEED)
    lines = [f"| setting | {' | '.join(stacks)} |", f"|---|{'--:|' * len(stacks)}"]
    print(*lines, sep="\n", flush=True)
    for name, config in variants():
        lines.append(f"| {name} | {' | '.join(cell(s, config) for s in stacks.values())} |")
        print(lines[-1], flush=True)
    before, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    table = "\n".join(lines)
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
