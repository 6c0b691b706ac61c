"""A small stack with pairs that are hard to match, and the settings of a training of seconds."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import tifffile

SETTINGS = {
    "mip": 0,
    "pairs": {"pairs": 40, "held_out": 8, "held_out_sections": 0.3},
    "training": {
        "network": {"widths": [4, 8]}, "search_px": 64, "template_px": 32, "slack_px": 4,
        "radius_px": 5, "batch": 4, "steps": 20, "check_every": 4, "learning_rate": 1e-2,
    },
}  # fmt: skip


def write_hard_stack(path: Path) -> str:
    """Write ten sections of common tissue, each under noise of its own; return the URI."""
    random = np.random.default_rng(0)
    tissue = cv2.GaussianBlur(random.normal(size=(220, 220)), (0, 0), 3)
    sections = []
    for _ in range(10):
        own = cv2.GaussianBlur(random.normal(size=(220, 220)), (0, 0), 2)
        image = tissue / tissue.std() + own / own.std()
        sections.append(np.clip(image * 30 + 120, 1, 255).astype(np.uint8))
    tifffile.imwrite(path, np.stack(sections))
    return path.as_uri()
