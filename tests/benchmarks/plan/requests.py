"""Count the requests of a run and hold them against its plan.

``python -m tests.benchmarks.plan.requests``; ``--write`` puts the table into docs/scale.md. What
the program asks of its store is counted where it asks, on files: with S3 it asks the same.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from distributed import Client

from alignment.commands.sample import write_phantom
from alignment.phantom import PhantomConfig
from alignment.planning.outcome import seen
from alignment.planning.plans import plan_stages
from alignment.planning.rates import shipped_rates
from alignment.runs import load, prepare
from alignment.stages import ORDER, run_stage
from storage import store
from storage.checked import CheckedStore
from tests.pages import write_table

SETTINGS = {
    "volume": {
        "section_shard_px": 128,
        "section_chunk_px": 64,
        "aligned_shard": [4, 128, 128],
        "aligned_chunk": [4, 32, 32],
    },
    "coarse": {"neighbours": 1},
}
COUNTED = ((store, "read_bytes"), (store, "size"), (store, "read_json_tagged"))


def main() -> None:
    """Align six sections, in this process, and print or write what was counted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    gets: Counter[str] = Counter()
    at: list[str] = [""]

    def counting(ask: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*words: Any, **options: Any) -> Any:
            gets[at[0]] += 1
            return ask(*words, **options)

        return counted

    for module, name in COUNTED:
        setattr(module, name, counting(getattr(module, name)))
    CheckedStore._fetch = counting(CheckedStore._fetch)  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        run = load(_align(Path(folder), at))
        planned = {p.stage: p.gets for p in plan_stages(seen(run), shipped_rates(), {})}
    lines = ["| stage | GET planned | GET counted | ratio |", "|---|--:|--:|--:|"]
    rows = [(stage, planned[stage], gets[stage]) for stage in ORDER]
    rows.append(("all", sum(planned.values()), sum(gets[stage] for stage in ORDER)))
    for stage, foreseen, found in rows:
        lines.append(f"| {stage} | {foreseen:,} | {found:,} | {found / foreseen:.2f} |")
    print("\n".join(lines))
    if arguments.write:
        write_table("scale.md", "plan-requests", "\n".join(lines))


def _align(folder: Path, at: list[str]) -> str:
    source = (folder / "raw.zarr").as_uri()
    whole = {"fold_section": None, "blank_section": None, "corner_section": None}
    write_phantom(source, PhantomConfig(sections=6, height=512, width=512, seed=5, **whole))
    one = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": ":0"}
    with Client(processes=False, **one) as client:
        run_uri = prepare(source, (folder / "out.zarr").as_uri(), SETTINGS)
        for stage in ORDER:
            at[0] = stage
            run_stage(stage, run_uri, client)
        at[0] = ""
    return run_uri


if __name__ == "__main__":
    main()
