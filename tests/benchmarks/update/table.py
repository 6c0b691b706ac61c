"""What a change has computed again, against what was planned and against a run from scratch.

``python -m tests.benchmarks.update.table`` aligns a phantom of 32 sections, then changes one thing
at a time: a block of pixels, a drawn mask, a setting of the solver, the model of confidence, a
re-imaged section, four new ones. Each change starts from a copy of the first volume, is planned,
run as an update on a Dask cluster of processes, and compared unit by unit. ``--write`` puts the
table into docs/reprocessing.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from alignment.blockwise import Client, local_client
from alignment.confidence_model import shipped_model
from alignment.phantom import Phantom, PhantomConfig
from alignment.planning.rehearsal import Name, rehearse
from alignment.runs import load, prepare
from alignment.stages import ORDER, run_stage
from storage import open_aligned
from storage.commit import manifest
from storage.commit.verify import verify_volume
from tests.pages import write_table

PAGE, TABLE = "reprocessing.md", "changes"
SECTIONS, NEW, SIDE_PX, CHANGED = 32, 4, 512, 13
SHARD_Z = 4
CONFIG: dict[str, Any] = {
    "volume": {
        "aligned_shard": [SHARD_Z, 512, 512],
        "aligned_chunk": [SHARD_Z, 64, 64],
    },
}


@dataclass
class Bench:
    """A stack, what lies beside it, and its settings."""

    folder: Path
    config: dict[str, Any] = field(default_factory=lambda: json.loads(json.dumps(CONFIG)))

    def path(self, kind: str, z: int) -> Path:
        """Return the file of a section, or of its drawn mask."""
        return self.folder / kind / f"section{z:03d}.tif"


def images(seed: int = 5) -> list[NDArray[np.uint8]]:
    """Return the phantom's sections, the new ones at the end."""
    defects = {"fold_section": 21, "blank_section": 8, "corner_section": None}
    config = PhantomConfig(
        sections=SECTIONS + NEW, height=SIDE_PX, width=SIDE_PX, seed=seed, **defects
    )
    phantom = Phantom(config)
    return [phantom.section(z) for z in range(SECTIONS + NEW)]


def set_up(bench: Bench, stack: list[NDArray[np.uint8]]) -> None:
    """Write the sections, masks without a stroke, and the model that comes with the package."""
    for kind in ("raw", "drawn"):
        (bench.folder / kind).mkdir(parents=True)
    for z, image in enumerate(stack[:SECTIONS]):
        tifffile.imwrite(bench.path("raw", z), image)
        tifffile.imwrite(bench.path("drawn", z), np.zeros_like(image))
    (bench.folder / "model.json").write_text(shipped_model().text())
    bench.config["masks"] = {"drawn": (bench.folder / "drawn").as_uri()}
    bench.config["filter"] = {"model": (bench.folder / "model.json").as_uri()}


def change_block(bench: Bench, stack: list[NDArray[np.uint8]]) -> None:
    """Another 64 x 64 px of one section, such as after a tile was stitched again."""
    image = stack[CHANGED].copy()
    image[200:264, 200:264] = image[264:328, 200:264]
    tifffile.imwrite(bench.path("raw", CHANGED), image)


def change_mask(bench: Bench, stack: list[NDArray[np.uint8]]) -> None:
    """A stroke over a part of one section."""
    mask = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    mask[100:180, 100:400] = 1
    tifffile.imwrite(bench.path("drawn", CHANGED), mask)


def change_setting(bench: Bench, stack: list[NDArray[np.uint8]]) -> None:
    """A stiffer mesh."""
    bench.config["relax"] = {"stiffness": 4.0}


def change_model(bench: Bench, stack: list[NDArray[np.uint8]]) -> None:
    """A more cautious model of confidence."""
    model = json.loads((bench.folder / "model.json").read_text())
    model["probabilities"] = [0.98 * p for p in model["probabilities"]]
    (bench.folder / "model.json").write_text(json.dumps(model))


def change_section(bench: Bench, stack: list[NDArray[np.uint8]]) -> None:
    """One section imaged again: another place, another brightness."""
    image = np.roll(stack[CHANGED], (7, -11), axis=(0, 1))
    tifffile.imwrite(bench.path("raw", CHANGED), np.clip(image * 0.9 + 8, 0, 255).astype(np.uint8))


def add_sections(bench: Bench, stack: list[NDArray[np.uint8]]) -> None:
    """Four more sections at the end."""
    for z in range(SECTIONS, SECTIONS + NEW):
        tifffile.imwrite(bench.path("raw", z), stack[z])
        tifffile.imwrite(bench.path("drawn", z), np.zeros_like(stack[z]))


CHANGES: dict[str, Callable[[Bench, list[NDArray[np.uint8]]], None]] = {
    "a block of 64 x 64 px of a section": change_block,
    "a drawn mask of a section": change_mask,
    "relax.stiffness": change_setting,
    "the model of confidence": change_model,
    "a section imaged again": change_section,
    "four new sections at the end": add_sections,
}


@dataclass(frozen=True)
class Row:
    """One change: what was planned, what was done, what stayed."""

    name: str
    units: int
    planned: int
    computed: int
    unplanned: frozenset[Name]
    spared: frozenset[Name]
    """Planned and not computed: what they read had the same bytes again."""
    seconds: float
    sections_anew: int
    voxels_outside_same: bool
    shards_same: str


def run_all(run_uri: str, client: Client) -> float:
    """Do every stage; return the seconds."""
    start = time.monotonic()
    for stage in ORDER:
        run_stage(stage, run_uri, client)
    return time.monotonic() - start


def keys(run_uri: str) -> dict[Name, str]:
    """Return the key of every unit that computes, by name."""
    return {
        (stage, line.phase, line.unit): line.key
        for stage in ORDER[:-1]
        for line in manifest.read_lines(run_uri, stage)
        if line.unit and (stage, line.phase) != ("relax", "kept")
    }


def shards(run_uri: str) -> dict[str, str]:
    """Return the digests of the shards of the finest level."""
    return {
        stored.path: stored.blake3
        for line in manifest.read_lines(run_uri, "render")
        for stored in line.objects
        if stored.path.startswith("aligned/0/c/")
    }


def measure(name: str, first: Bench, stack: list[NDArray[np.uint8]], client: Client) -> Row:
    """Make one change to a copy of the first volume, and say what it took."""
    with tempfile.TemporaryDirectory(prefix="petalign-update-") as folder:
        bench = Bench(first.folder, json.loads(json.dumps(first.config)))
        volume = Path(folder) / "out"
        shutil.copytree(first.folder / "out", volume)
        kept = Path(folder) / "kept"
        for kind in ("raw", "drawn"):
            shutil.copytree(first.folder / kind, kept / kind)
        model = (first.folder / "model.json").read_text()
        try:
            CHANGES[name](bench, stack)
            return _measured(name, bench, volume, client)
        finally:
            for kind in ("raw", "drawn"):
                shutil.rmtree(first.folder / kind)
                shutil.copytree(kept / kind, first.folder / kind)
            (first.folder / "model.json").write_text(model)


def _measured(name: str, bench: Bench, volume: Path, client: Client) -> Row:
    source = (bench.folder / "raw").as_uri()
    before = sorted((volume / "runs").iterdir())[0].as_uri()
    plan = rehearse(source, before, bench.config)
    after = prepare(source, volume.as_uri(), bench.config, update=True)
    seconds = run_all(after, client)
    problems = verify_volume(volume.as_uri(), full=True, runs="all").problems
    if problems:
        raise RuntimeError(f"{name}: {problems[0]}")
    one, other = keys(before), keys(after)
    computed = {n for n in other if one.get(n) != other[n] and not _is_called_for(n)}
    planned = {n for n in plan.done() if not _is_called_for(n)}
    base = load(after).base
    still = sorted(base.fields) if base else []
    old, new = (open_aligned(volume, at=epoch).values for epoch in (1, 2))
    had, has = shards(before), shards(after)
    same = sum(had.get(path) == digest for path, digest in has.items())
    return Row(
        name,
        len(other),
        len(planned),
        len(computed),
        frozenset(computed - planned),
        frozenset(planned - computed),
        seconds,
        new.shape[0] - len(still),
        bool((old[still] == new[still]).all()),
        f"{same} of {len(has)}",
    )


def _is_called_for(name: Name) -> bool:
    """Return whether only results call for a unit: a search farther away, a retried match."""
    stage, phase, _ = name
    return (stage, phase) == ("coarse", "far") or (stage == "match" and phase.startswith("retry"))


def table(rows: list[Row], whole: Mapping[str, float]) -> str:
    """Return the rows as Markdown."""
    lines = [
        f"A phantom of {SECTIONS} sections of {SIDE_PX} px, shards of {SHARD_Z} sections, "
        f"`update.junction_sections` at its default; two worker processes. From scratch: "
        f"{whole['units']:.0f} units, {whole['seconds']:.0f} s.",
        "",
        "| changed | units planned | computed | of all | not planned | sections solved | s | share "
        "of a whole run | shards with the same bytes | voxels outside the junction |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    lines += [
        f"| {row.name} | {row.planned} | {row.computed} | {row.units} | {len(row.unplanned)} | "
        f"{row.sections_anew} | {row.seconds:.0f} | {row.seconds / whole['seconds']:.0%} | "
        f"{row.shards_same} | {'identical' if row.voxels_outside_same else 'DIFFER'} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"put it into docs/{PAGE}")
    parser.add_argument("--only", action="append", choices=list(CHANGES), help="some changes only")
    options = parser.parse_args()
    stack = images()
    with (
        tempfile.TemporaryDirectory(prefix="petalign-first-") as folder,
        local_client(2) as client,
    ):
        first = Bench(Path(folder))
        set_up(first, stack)
        source, volume = (first.folder / "raw").as_uri(), (first.folder / "out").as_uri()
        run_uri = prepare(source, volume, first.config)
        seconds = run_all(run_uri, client)
        whole = {"seconds": seconds, "units": float(len(keys(run_uri)))}
        rows = [measure(name, first, stack, client) for name in options.only or CHANGES]
    text = table(rows, whole)
    print(text)
    for row in rows:
        for what, names in (("not planned", row.unplanned), ("spared", row.spared)):
            for name in sorted(names):
                print(f"{row.name}: {what}: {'/'.join(name)}")
    if options.write:
        write_table(PAGE, TABLE, text)


if __name__ == "__main__":
    main()
