"""One shard from zarr to zarr in a process of its own: its time by parts, and its peak memory.

Called as ``python -m tests.benchmarks.render.shard RUN_URI``; prints JSON. Times are processor time
of the whole process, so threads of zarr count.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import storage.store
from alignment.runs import load
from alignment.stages import drawn, render

PARTS = {
    "reading and decoding the source": (drawn, "read"),
    "fields, and which source box": (drawn.inputs, "read_row"),
    "positions and samples": (drawn, "warp"),
    "levels 1 and 2": (render, "halve"),
    "encoding and checksums": (render, "write"),
    "writing the objects": (storage.store, "create_bytes"),
}
"""Where each part of the work is called; writing is within encoding, and taken from it."""


def main() -> None:
    """Render the run's first shard and tell what it took."""
    run_uri = sys.argv[1]
    *_, shards = render.phases(load(run_uri))
    spent: dict[str, float] = defaultdict(float)
    for part, (module, name) in PARTS.items():
        setattr(module, name, _timed(getattr(module, name), part, spent))
    drawn.source_bounds = _timed(  # type: ignore[attr-defined]
        drawn.source_bounds, "fields, and which source box", spent
    )
    idle = _status_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    wall, cpu = time.perf_counter(), time.process_time()
    value = shards.work(shards.units[0], run_uri=run_uri)
    total = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu}
    spent["encoding and checksums"] -= spent["writing the objects"]
    print(
        json.dumps(
            {
                **total,
                "parts": dict(spent),
                "idle_bytes": idle,
                "peak_bytes": _status_bytes("VmHWM"),
                "bytes_read": value["bytes_read"],
            }
        )
    )


def _timed(work: Callable[..., Any], part: str, spent: dict[str, float]) -> Callable[..., Any]:
    @wraps(work)
    def timed(*arguments: Any, **named: Any) -> Any:
        begun = time.process_time()
        try:
            return work(*arguments, **named)
        finally:
            spent[part] += time.process_time() - begun

    return timed


def _status_bytes(name: str) -> int:
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index(f"{name}:") + 1]) * 1024


if __name__ == "__main__":
    main()
