"""Three steps of a study: make up a volume, train one network, compare all of them.

A training keeps its checkpoints in the store: if its worker is killed, the next start goes on from
the last one.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np

from alignment.commands.train_unet import read_segment_config
from alignment.learning.study.grid import DONE, RUNS, outcome
from alignment.learning.study.report import report_study
from inference.training.files import LOG, MODEL
from storage.grid import Box
from storage.store import join, read_bytes
from storage.volume import create_image, write

SHAPE, SHARD, CHUNK = (12, 128, 128), (1, 128, 128), (1, 64, 64)
SETTINGS = Path("settings.yaml")


def made_up() -> str:
    """Return where the volume lies: in the folder that all tasks of this recipe share."""
    return join(os.environ["PETALIGN_SHARED"].rpartition("/")[0], "volume")


def make() -> None:
    """Write blurred noise, and as labels where it is bright; doing so again is no fault."""
    noise = np.random.default_rng(0).normal(size=SHAPE)
    blurred = np.stack([cv2.GaussianBlur(section, (0, 0), 4) for section in noise])
    images = np.clip(blurred / blurred.std() * 50 + 128, 0, 255).astype(np.uint8)
    labels = np.where(images > 140, 255, 0).astype(np.uint8)
    for name, voxels in (("images", images), ("labels", labels)):
        (array,) = create_image(
            join(made_up(), name), shape=SHAPE, chunk=CHUNK, shard=SHARD,
            resolution_nm=(40.0, 4.0, 4.0), mips=1, name=name,
        )  # fmt: skip
        write(array, Box((0, 0, 0), SHAPE, 0), voxels)


def train(run: str, seed: int, data: str) -> None:
    """Train one network, and leave its table and how good it is."""
    mode, workers = run.split("-")
    place = made_up() if data == "made-up" else data
    folder = join(os.environ["PETALIGN_SHARED"], f"{run}-{seed}")
    setting = f"training.seed={seed}"
    words = [f"--mode={mode}", f"--workers={workers}", f"--config={SETTINGS}", f"--set={setting}"]
    subprocess.run(
        [sys.executable, "-P", "-m", "alignment.cli", "train", "unet", place, folder, *words],
        check=True,
    )
    config = read_segment_config(SETTINGS, [setting])
    left = outcome(place, read_bytes(join(folder, MODEL)), config)
    Path("out", LOG).write_bytes(read_bytes(join(folder, LOG)))
    Path("out", DONE).write_text(json.dumps(left))
    Path("result.json").write_text(json.dumps({"apart": left["apart"]}))


def compare() -> None:
    """Lay all tables into the folder of a study and write its page and pictures."""
    folder = Path("out/study")
    for task in json.loads(Path("in/train.json").read_text()):
        point = task["parameters"]
        place = folder / RUNS / f"{point['run']}-{point['seed']}"
        shutil.copytree(Path("in/train") / task["task"], place)
    report = report_study(folder)
    print(report.files[-1].read_text())
    Path("result.json").write_text(json.dumps({"trainings": len(report.studied)}))


def main() -> None:
    """Do one step."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("step", choices=["data", "train", "compare"])
    parser.add_argument("--run", help="mode and workers, as in sync-3")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--data", help="made-up, or where images and labels are")
    given = parser.parse_args()
    if given.step == "data":
        make()
    elif given.step == "train":
        train(given.run, given.seed, given.data)
    else:
        compare()


if __name__ == "__main__":
    main()
