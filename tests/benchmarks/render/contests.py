"""What is compared in the tables of rendering."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import cv2
import numpy as np

from alignment.bilinear import upsample
from alignment.fields import apply_affine
from alignment.planning.work import render_bytes
from alignment.render import warp
from alignment.resample import Interpolation
from alignment.runs import load
from storage.grid import Box
from storage.uri import local_path
from storage.volume import open_array, read
from tests.benchmarks.render.volume import SIDE_PX, SPACING_PX, places, ready_run, section
from tests.benchmarks.rounds import Contest

KERNELS: dict[Interpolation, int] = {
    "linear": cv2.INTER_LINEAR,
    "cubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
}
SECTIONS = 32
TURNS = 8
"""Of one way in a round: one alone is too short on a machine that others use too."""


def contest(interpolation: Interpolation) -> Contest:
    """Compare the kernel with OpenCV's on one section in memory, one thread each."""
    source = section(0)
    holed = source.copy()
    holed[:, : source.shape[1] // 4] = 0
    matrices, fields = places(1)
    y, x = maps(matrices[0], fields[0])

    def ours(image: np.ndarray) -> np.ndarray:
        where = (matrices[0], fields[0], SPACING_PX, (0, 0), (SIDE_PX, SIDE_PX))
        return warp(image, (0, 0), *where, interpolation)

    def opencv() -> np.ndarray:
        return cv2.remap(source, x, y, KERNELS[interpolation])

    def with_maps() -> np.ndarray:
        made_y, made_x = maps(matrices[0], fields[0])
        return cv2.remap(source, made_x, made_y, KERNELS[interpolation])

    difference = np.abs(ours(source).astype(int) - opencv())
    inside = np.s_[100:-100, 100:-100]
    # Cubic is mended most: see `alignment.weights`.
    assert difference[inside].mean() < (1.0 if interpolation == "cubic" else 0.25)
    return Contest(
        f"{interpolation}, one section in memory",
        float(TURNS * SIDE_PX**2),
        {
            "OpenCV remap, its map at hand": partial(_repeat, opencv),
            "petalign, from the nodes": partial(_repeat, partial(ours, source)),
            "petalign, a quarter of it no data": partial(_repeat, partial(ours, holed)),
            "numpy's map from the nodes, then OpenCV": partial(_repeat, with_maps),
        },
        unit="Mpx",
    )


def _repeat(work: Callable[[], np.ndarray]) -> None:
    for _ in range(TURNS):
        work()


def maps(matrix: np.ndarray, field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where the pixels of a section lie in its source, float32 (side, side) each: y, x."""
    _, ny, nx = field.shape
    at = np.indices((ny, nx), np.float64) * SPACING_PX
    nodes = apply_affine(matrix, (at + field).reshape(2, -1).T).T.reshape(2, ny, nx)
    y, x = upsample(nodes, SPACING_PX, (0, 0), (SIDE_PX, SIDE_PX)).astype(np.float32)
    return y, x


class EndToEnd(NamedTuple):
    """A shard from zarr to zarr against the bare resampling of its sections in memory."""

    interpolation: str
    bare_mpx_per_s: float
    mpx_per_s: float
    shares: tuple[float, ...]
    """Processor time of the bare resampling over that of the whole, one a round."""
    parts: dict[str, float]
    """Seconds of processor time."""
    peak_bytes: int
    planned_bytes: int


def end_to_end(folder: Path, interpolation: Interpolation, rounds: int) -> EndToEnd:
    """Render one shard of the default size in each round, in a process of its own."""
    run_uri = ready_run(folder, SECTIONS, {"interpolation": interpolation})
    bare, whole = [], []
    for round_ in range(rounds):
        turns = [partial(_bare, run_uri, interpolation), partial(_whole, run_uri)]
        found = [None, None]
        for k in (0, 1) if round_ % 2 else (1, 0):
            found[k] = turns[k]()
        bare.append(found[0])
        whole.append(found[1])
    pixels = SECTIONS * SIDE_PX**2 / 1e6
    cpu_s = median(turn["cpu_s"] for turn in whole)
    parts = {name: median(turn["parts"][name] for turn in whole) for name in whole[0]["parts"]}
    parts["all else"] = cpu_s - sum(parts.values())
    return EndToEnd(
        interpolation,
        pixels / median(bare),
        pixels / cpu_s,
        tuple(b / turn["cpu_s"] for b, turn in zip(bare, whole, strict=True)),
        parts,
        max(turn["peak_bytes"] for turn in whole),
        render_bytes((SECTIONS, SIDE_PX, SIDE_PX), load(run_uri).config),
    )


def _bare(run_uri: str, interpolation: Interpolation) -> float:
    """Return the processor time of OpenCV for all sections; what it needs is made before."""
    matrices, fields = places(SECTIONS)
    sources = open_array(run_uri, "sections/0")
    spent = 0.0
    for z in range(SECTIONS):
        image = read(sources, Box((z, 0, 0), (z + 1, *sources.shape[1:]), 0))[0]
        y, x = maps(matrices[z], fields[z])
        begun = time.process_time()
        cv2.remap(image, x, y, KERNELS[interpolation])
        spent += time.process_time() - begun
    return spent


def _whole(run_uri: str) -> dict[str, Any]:
    folder = local_path(run_uri)
    assert folder is not None
    for level in folder.glob("aligned/*/c"):
        shutil.rmtree(level)
    found = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.render.shard", run_uri],
        check=True,
        capture_output=True,
        text=True,
    )
    return dict(json.loads(found.stdout))
