"""A table of docs/nccnet.md: whole alignments by either kind of features, on real sections.

``python -m tests.models.pipeline_table FOLDER`` aligns each stack twice (FOLDER keeps the runs, and
a second call goes on), prints the table, and with ``--write`` puts it into the page.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from alignment.fields import invert
from alignment.links import PairMatches
from alignment.match import grid_spacing_px
from alignment.relax import residual_lengths
from alignment.runs import Run, load
from alignment.stages import inputs
from alignment.stages.slabstate import COVARIANCE
from storage.store import read_json
from storage.volume import open_array
from tests.accuracy.sets import DATA
from tests.pages import write_table

STACKS = {
    "isbi": "isbi2012_test/raw.tif",
    "aligntk": "aligntk_z00-07/raw.tif",
    "vnc": "vnc_stack1/raw.tif",
}
KINDS = ("bandpass", "nccnet")
FALSE_PX = 20.0
"""Farther from the relaxed field, at mip 0, a match is false."""


def main() -> None:
    """Align, print, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stack", action="append", choices=list(STACKS))
    parser.add_argument("--kind", action="append", choices=list(KINDS))
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    lines = [
        "| stack | features | correlation mean | p5 | p50 | residual p50 | p95 | p99 | matches "
        "| false by consensus | trusted |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for name in options.stack or STACKS:
        for kind in options.kind or KINDS:
            told = align(options.folder, name, kind)
            lines.append(row(name, kind, told))
            print(lines[-1], file=sys.stderr)
    table = "\n".join(lines)
    print(table)
    if options.write:
        write_table("nccnet.md", "in the pipeline", table)


def align(folder: Path, name: str, kind: str) -> dict[str, Any]:
    """Align a stack, or look at how it was aligned."""
    kept = folder / f"{name}-{kind}.json"
    if not kept.exists():
        folder.mkdir(parents=True, exist_ok=True)
        source, volume = (DATA / STACKS[name]).resolve(), folder / f"{name}-{kind}.zarr"
        program = Path(sys.executable).with_name("petalign")
        command = [str(program), "align", str(source), str(volume)]
        command += ["--set", f"features.kind={kind}", "--json"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=os.environ)
        kept.write_bytes(done.stdout)
    found: dict[str, Any] = json.loads(kept.read_text())
    return found


def row(name: str, kind: str, told: dict[str, Any]) -> str:
    """Return the line of one alignment."""
    figures = read_json(f"{told['run']}/qc.json")
    after, residual = figures["correlation"]["after"], figures["residual"]
    matches, false, trusted = consensus(load(told["run"]))
    shown = [f"{after[k]:.3f}" for k in ("mean", "p5", "p50")]
    shown += [f"{residual[k]:.2f} px" for k in ("p50", "p95", "p99")]
    shown += [f"{matches:,}", f"{false / matches:.2%}", f"{trusted / matches:.1%}"]
    return f"| {name} | {kind} | " + " | ".join(shown) + " |"


def consensus(run: Run) -> tuple[int, int, int]:
    """Return how many matches there are, how many the relaxed field contradicts, how many count."""
    spacing, node = grid_spacing_px(run.config.match), run.config.relax.node_spacing_px
    gone = inputs.missing(run.uri)
    counts = np.zeros(3, int)
    push = {}
    for z in range(run.shape[0]):
        if z not in gone:
            push[z] = invert(inputs.read_row(open_array(run.uri, "fields"), z), node).astype(float)
    for z, d in inputs.match_pairs(run):
        if {z, z - d} & gone:
            continue
        found = inputs.read_row(open_array(run.uri, f"matches/{d}"), z)
        kept = inputs.read_row(open_array(run.uri, f"trusted/{d}"), z)
        is_found = np.isfinite(found[0])
        weight = is_found.astype(np.float32)
        links = PairMatches(z, d, found[:2], found[COVARIANCE], weight=weight).links(spacing)
        lengths = residual_lengths(links, push[z], push[z - d], node, spacing)
        counts += [
            int(is_found.sum()),
            int((lengths > FALSE_PX).sum()),
            int(np.isfinite(kept[0]).sum()),
        ]
    matches, false, trusted = counts.tolist()
    return matches, false, trusted


if __name__ == "__main__":
    main()
