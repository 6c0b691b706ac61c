"""The tables of docs/masks.md: what the masks find, what they take by mistake, what they cost.

``python -m tests.accuracy.masks_table`` measures everything on the real sets in ALIGN_TEST_DATA
(about four minutes on one core), prints the tables and writes them into ``docs/masks.md``;
``--quick`` takes a fifth of the sections.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from alignment.config import MasksConfig
from alignment.defects import Defect
from alignment.duplicates import judge_duplicates, measure_likeness
from alignment.masks import Examination, examine_section
from alignment.misalignment import Misalignment, MisalignmentConfig
from alignment.phantom import Phantom, PhantomConfig
from alignment.pyramid import downsample
from tests.accuracy import masks_drawn
from tests.accuracy.sets import DATA

PAGE = Path(__file__).parents[2] / "docs" / "masks.md"
BEGIN, END = "<!-- tables of masks: begin -->", "<!-- tables of masks: end -->"
REACH_PX = 8
"""A defect's pixel is found if it lies this near to a masked one, px at the masks' mip."""
CONFIG = MasksConfig()
OFF = MasksConfig(
    band_min_length_px=0, seam_min_length_px=0, clipped_share=1.0, underexposed_fraction=0.0
)
"""What was looked for before: no data, saturation, flatness, the outside."""
NEW = (Defect.FOLD, Defect.CRACK, Defect.SEAM, Defect.UNDEREXPOSED)
CLEAN = ("vnc_stack1", "isbi2012_test", "fib_medulla_ts2", "aligntk_z00-07")
WIDTHS_PX = (8, 16, 32)
STEPS = (0.3, 0.5, 0.8)

Image = NDArray[np.uint8]
Mask = NDArray[np.bool_]


class Score(NamedTuple):
    """How one section's mask compares with the truth."""

    exactly: float
    """Share of the true pixels that are masked."""
    nearly: float
    """Share of them within `REACH_PX` of what is masked."""
    false: float
    """Share of the other pixels, beyond `REACH_PX` of the truth, that are masked."""


def score(found: Mask, truth: Mask) -> Score:
    """Compare a mask with the truth, both (ny, nx)."""
    far_from_found, far_from_truth = (
        cv2.distanceTransform((~m).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        for m in (found, truth)
    )
    near = far_from_found[truth] <= REACH_PX if found.any() else np.zeros(int(truth.sum()), bool)
    clean = far_from_truth > REACH_PX
    return Score(float(found[truth].mean()), float(near.mean()), float(found[clean].mean()))


def main() -> None:
    """Measure and write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m tests.accuracy.masks_table"
    )
    parser.add_argument("--quick", action="store_true", help="take a fifth of the sections")
    parser.add_argument("--page", type=Path, default=PAGE, help="where the tables are written")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    every = 5 if options.quick else 1
    parts = [
        "### Damage that is known\n\n" + _table(_HEAD_DAMAGE, [*real(), *simulated(every)]),
        "### Damage drawn into real sections\n\n" + _table(_HEAD_DRAWN, drawn(every)),
        "### Seams drawn into real sections\n\n" + _table(_HEAD_SEAMS, seams(every)),
        "### Clean tissue that is lost\n\n" + _table(_HEAD_CLEAN, clean(every)),
        "### Duplicates\n\n" + _table(_HEAD_DUPLICATES, duplicates()),
        "### Cost\n\n" + _table(_HEAD_COST, cost()),
    ]
    text = "\n\n".join(parts)
    print(text)
    if not options.quick:
        write(options.page, text)


def write(page: Path, text: str) -> None:
    """Put the tables between their marks."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise SystemExit(f"{page} lacks the lines {BEGIN!r} and {END!r}")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}")


def read(name: str, file: str = "raw.tif") -> Image:
    """Return a set as (z, y, x) at mip 0."""
    stack = tifffile.imread(DATA / name / file)
    return np.asarray(stack if stack.ndim == 3 else stack[np.newaxis], np.uint8)


def halved(stack: Image) -> Image:
    """Return a stack at mip 1, where the masks are computed."""
    return downsample(
        np.ascontiguousarray(stack[:, : stack.shape[1] // 2 * 2, : stack.shape[2] // 2 * 2])
    )


def torn(found: Examination) -> Mask:
    """Return what is masked as a fold or a crack."""
    return np.asarray((found.reasons & np.uint8(Defect.FOLD | Defect.CRACK)) > 0)


_HEAD_DAMAGE = (
    "set", "sections", "true px, % of section", "masked, %", "within 8 px, %", "false, % of clean",
)  # fmt: skip


def real() -> Iterator[tuple[str, ...]]:
    """Yield the real fold and the real crack."""
    truth = halved(read("damaged_DOLW7", "moving_defect_mask.tif"))[0] > 127
    found = examine_section(halved(read("damaged_DOLW7", "moving_raw.tif"))[0], CONFIG)
    yield _row("damaged_DOLW7: the given fold", [score(torn(found), truth)], [truth])
    image = halved(read("cremi_im015_crack", "section_raw.tif"))[0]
    black = (image == 0).view(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(black)
    crack = labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    # Padding hangs together with it; it is thin beside the crack.
    crack = cv2.morphologyEx(crack.view(np.uint8), cv2.MORPH_OPEN, np.ones((41, 41))) > 0
    found = examine_section(image, CONFIG)
    yield _row("cremi_im015_crack: named as a crack", [score(torn(found), crack)], [crack])


def simulated(every: int) -> Iterator[tuple[str, ...]]:
    """Yield the folds and cracks of the phantom, and the same drawn on its warped tissue."""
    for kind in ("fold", "crack"):
        scores, truths = [], []
        for seed in range(1, 11, every):
            settings: dict[str, Any] = dict.fromkeys(
                ("fold_section", "blank_section", "corner_section")
            )
            settings[f"{kind}_section"] = 0
            config = PhantomConfig(sections=1, seed=seed, **settings)
            image = halved(Phantom(config).section(0)[np.newaxis])[0]
            damage = MisalignmentConfig(
                **{name: getattr(config, name) for name in MisalignmentConfig.model_fields}
            )
            drawn_as = Misalignment(damage, (1, config.height, config.width))
            at = np.arange(config.height)
            truth = ~drawn_as.shows_tissue(0, at, at)[::2, ::2]
            scores.append(score(torn(examine_section(image, CONFIG)), truth))
            truths.append(truth)
        yield _row(f"phantom: {kind} of 12 px", scores, truths)


def _row(name: str, scores: list[Score], truths: list[Mask]) -> tuple[str, ...]:
    area = np.mean([truth.mean() for truth in truths])
    mean = Score(*np.mean(scores, axis=0))
    return (name, str(len(scores)), f"{100 * area:.1f}", *(f"{100 * v:.2f}" for v in mean))


_HEAD_DRAWN = (
    "set", "damage", "width, px at mip 0", "sections", "found at all", "within 8 px, %",
    "false, % of clean",
)  # fmt: skip


def drawn(every: int) -> Iterator[tuple[str, ...]]:
    """Yield what is found of folds and cracks drawn into real sections."""
    kinds: dict[str, masks_drawn.Damage] = {
        "fold, 3 layers": masks_drawn.fold,
        "fold, 2 layers": masks_drawn.faint_fold,
        "bright crack": masks_drawn.bright_crack,
        "black crack": masks_drawn.black_crack,
    }
    for name in CLEAN[:3]:
        stack = read(name)
        if name == "fib_medulla_ts2":  # too small for its masks' mip: twice as fine
            stack = np.stack(
                [
                    cv2.resize(s, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
                    for s in stack[::12]
                ]
            )
        stack = stack[:10:every]
        for kind, draw in kinds.items():
            for width in WIDTHS_PX:
                scores = []
                for z, section in enumerate(stack):
                    damaged, truth = draw(section, width, np.random.default_rng([width, z]))
                    image = halved(damaged[np.newaxis])[0]
                    at = truth[: 2 * image.shape[0] : 2, : 2 * image.shape[1] : 2]
                    scores.append(
                        score(torn(examine_section(image, CONFIG)), np.ascontiguousarray(at))
                    )
                found = sum(s.nearly > 0.5 for s in scores)
                yield (
                    name, kind, str(width), str(len(scores)), str(found),
                    f"{100 * np.mean([s.nearly for s in scores]):.1f}",
                    f"{100 * np.mean([s.false for s in scores]):.3f}",
                )  # fmt: skip


_HEAD_SEAMS = (
    "set", "step, spreads", "sections", "found at all", "length within 8 px, %",
    "strip, % of section", "false, % of clean",
)  # fmt: skip


def seams(every: int) -> Iterator[tuple[str, ...]]:
    """Yield what is found of steps of grey drawn into real sections at mip 1."""
    for name in ("vnc_stack1", "aligntk_z00-07"):
        stack = halved(read(name))[::every]
        for step in STEPS:
            scores, strips = [], []
            for z, section in enumerate(stack):
                stepped, line = masks_drawn.seam(section, step, np.random.default_rng(z))
                strip = (examine_section(stepped, CONFIG).reasons & Defect.SEAM) > 0
                scores.append(score(strip, line))
                strips.append(strip.mean())
            yield (
                name, f"{step:g}", str(len(scores)), str(sum(s.nearly > 0.3 for s in scores)),
                f"{100 * np.mean([s.nearly for s in scores]):.0f}", f"{100 * np.mean(strips):.2f}",
                f"{100 * np.mean([s.false for s in scores]):.3f}",
            )  # fmt: skip


_HEAD_CLEAN = (
    "set", "sections", *(d.name.lower() + ", %" for d in NEW if d.name), "all four, %",
    "flat, saturated, no data: %",
)  # fmt: skip


def clean(every: int) -> Iterator[tuple[str, ...]]:
    """Yield what is masked of sections that have no fold, crack or seam."""
    sets = {name: read(name) for name in CLEAN}
    sets["damaged_DOLW7, its neighbour"] = read("damaged_DOLW7", "fixed_raw.tif")
    sets["nornir_tiles"] = read("nornir_tiles")
    sets["pinky_sample1"] = read("pinky_sample1")
    for name, stack in sets.items():
        shares = []
        for section in halved(stack[:: every * (4 if len(stack) > 100 else 1)]):
            found = examine_section(section, CONFIG)
            new = (found.reasons & np.uint8(sum(NEW))) > 0
            old = (examine_section(section, OFF).reasons & ~np.uint8(Defect.OUTSIDE)) > 0
            areas = [found.areas[d.name or ""] for d in NEW]
            shares.append([*areas, (new & ~old).mean(), old.mean()])
        yield (name, str(len(shares)), *(f"{100 * v:.3f}" for v in np.mean(shares, axis=0)))


_HEAD_DUPLICATES = (
    "set", "pairs", "structure of neighbours", "grain of neighbours", "named wrongly",
    "a copy: grain", "JPEG of it: grain", "a second picture: structure, grain", "all three named",
)  # fmt: skip


def duplicates() -> Iterator[tuple[str, ...]]:
    """Yield how alike neighbours are, and a copy and a second picture of one section."""
    stacks = {name: read(name) for name in CLEAN}
    stacks["fib_medulla_ts2, every 4th"] = stacks["fib_medulla_ts2"][::4]
    stacks["pinky_sample1"] = read("pinky_sample1")
    for name, stack in stacks.items():
        few = stack[:21]
        found = {(z, z - 1): measure_likeness(few[z - 1], few[z]) for z in range(1, len(few))}
        wrong = judge_duplicates(found)
        section = few[len(few) // 2]
        blurred = cv2.GaussianBlur(section, (0, 0), 1).astype(np.float64)
        noise = [np.random.default_rng(seed).normal(0, 6, section.shape) for seed in (1, 2)]
        again = [np.rint(blurred + n).clip(1, 255).astype(np.uint8) for n in noise]
        jpeg = cv2.imdecode(cv2.imencode(".jpg", section)[1], cv2.IMREAD_GRAYSCALE)
        made = {
            "copy": measure_likeness(section, section),
            "jpeg": measure_likeness(section, np.asarray(jpeg, np.uint8)),
            "again": measure_likeness(*again),
        }
        named = judge_duplicates({**found, **made})
        structure, grain = (
            np.array([getattr(v, a) for v in found.values()]) for a in ("structure", "grain")
        )
        yield (
            name, str(len(found)), f"{np.median(structure):.2f}, at most {structure.max():.2f}",
            f"{np.median(grain):.2f}, at most {grain.max():.2f}", str(len(wrong)),
            f"{made['copy'].grain:.2f}", f"{made['jpeg'].grain:.2f}",
            f"{made['again'].structure:.2f}, {made['again'].grain:.2f}",
            "yes" if set(made) <= set(named) else f"only {', '.join(set(made) & set(named))}",
        )  # fmt: skip


_HEAD_COST = ("section, px at the masks' mip", "before", "now", "folds and cracks", "seams")


def cost() -> Iterator[tuple[str, ...]]:
    """Yield CPU-seconds per megapixel of the masks' mip, best of three."""
    bands, lines = (
        CONFIG.model_copy(update={name: 0}) for name in ("band_min_length_px", "seam_min_length_px")
    )
    small = halved(read("vnc_stack1")[:1])[0]
    for name, section in (
        ("512 x 512, clean", small),
        ("2048 x 2048, clean", np.tile(small, (4, 4))),
        ("500 x 500, a fold", halved(read("damaged_DOLW7", "moving_raw.tif"))[0]),
        ("870 x 956, a crack and seams", halved(read("cremi_im015_crack", "section_raw.tif"))[0]),
    ):
        before, now, no_bands, no_lines = (_cpu_s(section, c) for c in (OFF, CONFIG, bands, lines))
        per = 1e6 / section.size
        yield (
            name, f"{before * per:.3f}", f"{now * per:.3f}",
            f"{(now - no_bands) * per:.3f}", f"{(now - no_lines) * per:.3f}",
        )  # fmt: skip


def _cpu_s(section: Image, config: MasksConfig) -> float:
    times = []
    for _ in range(3):
        begun = time.process_time()
        examine_section(section, config)
        times.append(time.process_time() - begun)
    return min(times)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---", *("--:" for _ in head[1:])), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


if __name__ == "__main__":
    main()
