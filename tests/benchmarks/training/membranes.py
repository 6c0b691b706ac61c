"""A membrane U-Net from labelled sections to probabilities over the aligned stack, under Airflow.

``python -m tests.benchmarks.training.membranes FOLDER`` trains by docs/recipes/unet/membranes.yaml
on half of `vnc_stack1`, brings a platform up, aligns the stack by the DAG `align_volume`, runs the
network over what that published by `predict_volume`, and compares the probabilities with the labels
of each section, which the field of the alignment carries over. Goes on where it was stopped. FOLDER
also gets a picture of a section that no training saw: image, labels, probabilities; its pixels must
not be published. ``--write`` puts the table into docs/training.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from alignment.commands.query import to_source
from alignment.commands.train_unet import read_segment_config
from alignment.learning.segmentation.labelled import split
from alignment.platform.config import PlatformConfig
from alignment.platform.lifecycle import PlatformInfo, down, up
from inference.training.files import MODEL
from storage import open_aligned, open_prediction
from storage.publish import read_pointer
from storage.store import join, replace_bytes
from tests.benchmarks.machine import machine
from tests.pages import DOCS, write_table
from tests.platform.conftest import free_ports

PAGE, TABLE = "training.md", "membranes"
SETTINGS = DOCS / "recipes" / "unet" / "membranes.yaml"
PATCHES = {"patches.patch_px": [1, 512, 512], "patches.margin_px": [0, 64, 64]}

Section = NDArray[np.uint8]


@dataclass(frozen=True)
class Compared:
    """One section in the frame of the aligned volume."""

    dice: float
    """Of all pixels that the source covers, at a probability of 0.5."""
    correlation: float
    """Of the aligned section with the source carried over as the labels were: 1 if the field says
    truly where pixels come from."""
    picture: Section
    """(y, 3 x): image, labels, probabilities."""


def stack() -> Path:
    """Return the folder of the stack and its labels."""
    return Path(os.environ.get("ALIGN_TEST_DATA", "../shared/data")) / "vnc_stack1"


def train(folder: Path) -> dict[str, Any]:
    """Train as a user does, and return what came of it."""
    command = ["train", "unet", str(stack()), str(folder), "--config", str(SETTINGS)]
    done = subprocess.run(
        [sys.executable, "-m", "alignment.cli", *command, "--json"],
        check=True, stdout=subprocess.PIPE,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def run_dags(platform: PlatformInfo, network: Path) -> tuple[str, str, dict[str, float]]:
    """Align the stack and run the network over it; return both volumes, and seconds by DAG."""
    place = f"s3://{platform.bucket}/membranes"
    raw, model, aligned, predicted = (
        join(place, name) for name in ("raw.tif", "membranes.keras", "aligned", "predicted")
    )
    replace_bytes(raw, (stack() / "raw.tif").read_bytes())
    replace_bytes(model, network.read_bytes())
    seconds = {
        "align_volume": _run(platform, "align_volume", {"source": raw, "volume": aligned}),
        "predict_volume": _run(
            platform,
            "predict_volume",
            {"volume": aligned, "model": model, "prediction": predicted, **PATCHES},
        ),
    }
    return aligned, predicted, seconds


def _run(platform: PlatformInfo, dag_id: str, conf: dict[str, Any]) -> float:
    with platform.airflow() as airflow:
        airflow.wait_for_dag(dag_id)
        begun = time.monotonic()
        run_id = airflow.trigger(dag_id, conf)
        while (state := airflow.state(dag_id, run_id)) in ("queued", "running"):
            time.sleep(1)
        if state != "success":
            raise SystemExit(f"{dag_id} is {state}: {airflow.task_states(dag_id, run_id)}")
        return time.monotonic() - begun


def compare(aligned: str, predicted: str) -> list[Compared]:
    """Compare each section's probabilities with its labels, carried over to the aligned frame."""
    raw = tifffile.imread(stack() / "raw.tif")
    labels = tifffile.imread(stack() / "membranes.tif")
    pointer = read_pointer(aligned)
    assert pointer is not None
    run_uri = join(aligned, "runs", pointer.run)
    images, found = open_aligned(aligned), open_prediction(predicted)
    rows, columns = images.shape[1:]
    grid = np.stack(np.mgrid[:rows, :columns], axis=-1).reshape(-1, 2).astype(np.float64)
    every = []
    for z in range(len(raw)):
        at = to_source(run_uri, z, grid).reshape(rows, columns, 2).astype(np.float32)
        y, x = at[..., 0], at[..., 1]
        image, probability = images[z].to_numpy(), found[0, z].to_numpy()
        has_data = (image > 0) & (y >= 0) & (x >= 0)
        has_data &= (y <= raw.shape[1] - 1) & (x <= raw.shape[2] - 1)
        carried = cv2.remap(raw[z], x, y, cv2.INTER_LINEAR)
        truth = cv2.remap(labels[z], x, y, cv2.INTER_NEAREST) > 0
        mask = probability >= 128
        common, both = (mask & truth)[has_data].sum(), mask[has_data].sum() + truth[has_data].sum()
        every.append(
            Compared(
                dice=float(2 * common / both),
                correlation=float(np.corrcoef(image[has_data], carried[has_data])[0, 1]),
                picture=np.hstack([image, np.uint8(255) * truth, probability]),
            )
        )
    return every


def table(trained: dict[str, Any], compared: list[Compared], seconds: dict[str, float]) -> str:
    """Return the figures as Markdown."""
    parts = split(len(compared), 1, read_segment_config(SETTINGS, None).data)
    lines = [
        f"{machine('tensorflow-cpu', 'keras')} {trained['samples']} samples, "
        f"{trained['seconds'] / 60:.0f} minutes of steps; best epoch {trained['best_epoch']} of "
        f"{trained['epochs']}, Dice {trained['dice']:.3f} of the held-out samples.",
        "",
        "| sections of the aligned stack | Dice, mean | lowest | highest |",
        "|---|--:|--:|--:|",
    ]
    names = ("learned from", "held out, chose the epoch", "kept apart, seen by no training")
    for name, part in zip(names, parts, strict=True):
        dice = [compared[z].dice for z in part]
        lines.append(
            f"| {part[0]} to {part[-1]}: {name} | {np.mean(dice):.3f} | {min(dice):.3f} | "
            f"{max(dice):.3f} |"
        )
    correlation = min(each.correlation for each in compared)
    lines += [
        "",
        f"The DAG `align_volume` took {seconds['align_volume']:.0f} s and `predict_volume` "
        f"{seconds['predict_volume']:.0f} s. Aligned sections and those carried over by the field "
        f"correlate by {correlation:.3f} or more.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Print the table, or write it into the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m tests.benchmarks.training.membranes"
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write", action="store_true", help="into docs/training.md")
    given = parser.parse_args()
    folder: Path = given.folder
    trained = train(folder / "network")
    config = PlatformConfig(home=folder / "platform", dask_workers=2, **free_ports())
    platform = up(config)
    try:
        os.environ |= platform.environment()
        aligned, predicted, seconds = run_dags(platform, folder / "network" / MODEL)
        compared = compare(aligned, predicted)
    finally:
        down(config)
    cv2.imwrite(str(folder / "kept-apart.png"), compared[-1].picture)
    text = table(trained, compared, seconds)
    print(text)
    if given.write:
        write_table(PAGE, TABLE, text)


if __name__ == "__main__":
    main()
