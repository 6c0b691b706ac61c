"""A run that is ready to be rendered: sections of noise, turned and bent a little."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from alignment.fields import node_grid, quantise
from alignment.runs import load
from alignment.stages import render
from tests.relaxed_run import relaxed_run

SIDE_PX = 2048
MARGIN_PX = 160
SPACING_PX = 32


def section(z: int, side: int = SIDE_PX + MARGIN_PX) -> np.ndarray:
    """Return an image (side, side) that is as smooth as EM at 4 nm and compresses as badly."""
    random = np.random.default_rng(z)
    image = random.standard_normal((side, side), np.float32)
    image = cv2.GaussianBlur(image, (0, 0), 1.2) * 150 + 128
    image += random.standard_normal((side, side), np.float32) * 4
    return np.clip(image, 1, 255).astype(np.uint8)


def places(sections: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the sections' affines (z, 2, 3), turned by up to 2 degrees, and their fields."""
    matrices, fields = [], []
    nodes = node_grid((SIDE_PX, SIDE_PX), SPACING_PX)
    for z in range(sections):
        angle = np.deg2rad(2) * np.sin(z + 1)
        c, s = np.cos(angle), np.sin(angle)
        linear = np.array([[c, -s], [s, c]])
        middle, target = SIDE_PX / 2, (SIDE_PX + MARGIN_PX) / 2
        shift = target - linear @ [middle, middle]
        matrices.append(np.column_stack([linear, shift]))
        rough = np.random.default_rng(z).normal(scale=60, size=(*nodes, 2)).astype(np.float32)
        fields.append(quantise(np.moveaxis(cv2.GaussianBlur(rough, (0, 0), 4), -1, 0)))
    return np.array(matrices), np.stack(fields)


def ready_run(folder: Path, sections: int, settings: dict[str, Any]) -> str:
    """Return the URI of a run whose aligned volume is one shard wide and 4 levels deep."""
    matrices, fields = places(sections)
    side = SIDE_PX + MARGIN_PX
    run_uri = relaxed_run(
        folder,
        [lambda z=z: section(z) for z in range(sections)],
        (side, side),
        fields=fields,
        matrices=matrices,
        canvas=(SIDE_PX, SIDE_PX),
        config={"render": settings},
    )
    list(render.phases(load(run_uri)))  # creates the arrays
    return run_uri
