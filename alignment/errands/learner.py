"""The program that trains: ``python -m alignment.errands.learner ORDER OUTCOME``, two JSON files.

It does what `petalign train` does, says the same, and leaves its error with the kind that decides
whether a retry can help.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from alignment.errands.drive import kind_of

CACHE, CACHE_BYTES = "PETALIGN_CACHE", "PETALIGN_CACHE_BYTES"
"""What the environment of a worker may say of a cache, as for `petalign train unet`."""


def _nccnet(told: Mapping[str, Any], folder: Path) -> None:
    from alignment.commands.train import train_at

    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(told["config"]))
    train_at([told["stack"]], told["folder"], config, None, quiet=False)


def _unet(told: Mapping[str, Any], _folder: Path) -> None:
    from alignment.commands.train_unet import train_unet
    from alignment.learning.segmentation.config import parse_segment_config

    cache = os.environ.get(CACHE)
    train_unet(
        told["data"], told["folder"], parse_segment_config(told["config"]), mode=told["mode"],
        workers=told["workers"], restarts=0, cache=Path(cache) if cache else None,
        cache_bytes=os.environ.get(CACHE_BYTES, "20GB"), quiet=False,
    )  # fmt: skip


TRAININGS: dict[str, Callable[[Mapping[str, Any], Path], None]] = {
    "train_nccnet": _nccnet,
    "train_unet": _unet,
}
"""By errand."""


def main(order: Path, outcome: Path) -> int:
    """Train as the order says; return the exit status."""
    told = json.loads(order.read_text())
    try:
        TRAININGS[told["errand"]](told, order.parent)
    except KeyboardInterrupt:
        return 1
    except Exception as error:
        outcome.write_text(json.dumps({"error": str(error), "kind": kind_of(error)}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
