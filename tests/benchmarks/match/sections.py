"""A whole section against three neighbours: pixels a second of one core, and memory.

Run as a program it matches one section of a side and prints one line of JSON; each side needs a
process of its own, since memory is its peak.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from scipy import ndimage as ndi

from alignment.config import MatchConfig, MatchLevel
from alignment.match import Patch, grid_shape, halo_px, match_block

NEIGHBOURS = 3
BLOCK_NODES = 64
CONFIG = MatchConfig(
    levels=(MatchLevel(mip=0, template_px=160, search_radius_px=80, node_spacing_px=80),),
    refine=(),
)


def measure(side_px: int) -> dict[str, float]:
    """Return what one section of `side_px` takes, measured in a process of its own."""
    command = [sys.executable, "-m", __spec__.name if __spec__ else __name__, str(side_px)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def match_section(side_px: int) -> dict[str, float]:
    """Match a section with its neighbours in blocks of nodes, as the stage does."""
    random = np.random.default_rng(0)
    tile = ndi.gaussian_filter(random.normal(size=(2048, 2048)), 2.0, mode="wrap")
    whole = np.tile((tile / tile.std()).clip(-4, 4).astype(np.float16), (-(-side_px // 2048),) * 2)
    moving = np.ascontiguousarray(whole[:side_px, :side_px])
    sections = [moving, *(np.roll(moving, (3 * d, -5 * d), axis=(0, 1)) for d in (1, 2, 3))]
    del whole
    shape, halo = grid_shape(moving.shape, CONFIG), halo_px(CONFIG)
    before = _forget_peak()
    start, matched, nodes = time.process_time(), 0, 0
    for i in range(0, shape[0], BLOCK_NODES):
        for j in range(0, shape[1], BLOCK_NODES):
            box = (i, j), (min(i + BLOCK_NODES, shape[0]), min(j + BLOCK_NODES, shape[1]))
            low = [max(80 * first - halo, 0) for first in box[0]]
            high = [80 * last + halo for last in box[1]]
            patches = [
                _patch(section[low[0] : high[0], low[1] : high[1]], low) for section in sections
            ]
            for fixed in patches[1:]:
                found = match_block({0: fixed}, {0: patches[0]}, *(box, shape, CONFIG))
                matched += int(np.isfinite(found[0]).sum())
                nodes += found[0].size
    spent = time.process_time() - start
    return {
        "side_px": side_px,
        "cpu_s": spent,
        "mpx_per_s": side_px**2 / 1e6 / spent,
        "matches_per_s": nodes / spent,
        "matched": matched / nodes,
        "section_mb": moving.nbytes / 1e6,
        "peak_mb": (_peak_bytes() - before) / 1e6,
    }


def _patch(features: np.ndarray, low: list[int]) -> Patch:
    return Patch(features.astype(np.float32), np.ones(features.shape, bool), (low[0], low[1]), 0)


def _forget_peak() -> int:
    """Return the memory in use, and let the peak begin from it."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status_bytes("VmRSS")


def _peak_bytes() -> int:
    return _status_bytes("VmHWM")


def _status_bytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(name))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("side_px", type=int)
    print(json.dumps(match_section(parser.parse_args().side_px)))
