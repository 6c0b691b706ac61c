"""One run, stage by stage on fresh workers, and what each stage took and left."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from alignment.blockwise import local_client
from alignment.runs import Run, load, prepare
from alignment.stages import ORDER, run_stage
from storage import store
from storage.commit import records
from storage.ledger import read_state
from storage.uri import local_path
from tests.benchmarks.plan.stacks import Case


@dataclass(frozen=True)
class Actual:
    """What one stage took and left."""

    stage: str
    units: int
    data_objects: int
    objects: int
    """With records, metadata, and what sums them up."""
    bytes: int
    """Of all of them."""
    record_bytes: int
    """Of records and manifests."""
    data_bytes: Counter[str]
    """By array."""
    busy_s: float
    peak_bytes: int


def align(case: Case, folder: Path) -> Run:
    """Align a stack, with one worker process for each stage.

    What lies finished in the folder is taken as it is, whichever version of the code made it.
    """
    home = folder / case.name.replace(", ", "_").replace(" ", "")
    home.mkdir(parents=True, exist_ok=True)
    for earlier in sorted((home / "out.zarr" / "runs").glob("*")):
        if read_state(earlier.as_uri(), "publish").status == "done":
            return load(earlier.as_uri())
    run_uri = prepare(case.source(home), (home / "out.zarr").as_uri(), case.settings)
    for stage in ORDER:
        # Fresh workers: what an earlier stage has left in the heap would count as this one's.
        with local_client(1, memory_limit="0") as client:
            run_stage(stage, run_uri, client, reuse=False)
    return load(run_uri)


def actual(run: Run) -> dict[str, Actual]:
    """Return what each stage took, by its ledger, and left, by a look at every object."""
    return {stage: _stage(run, stage) for stage in ORDER}


def _stage(run: Run, stage: str) -> Actual:
    root = local_path(run.uri)
    assert root is not None
    state = read_state(run.uri, stage)
    commits = [
        commit
        for phase in store.list_names(store.join(run.uri, "commits", stage))
        for commit in records.read_commits(run.uri, stage, phase).values()
    ]
    written: Counter[str] = Counter()
    objects = 0
    for commit in commits:
        for stored in commit.objects:
            if not stored.path.endswith("zarr.json"):
                written[stored.path.partition("/")[0]] += stored.bytes
                objects += 1
    told = [*(root / "commits" / stage).rglob("*.json")]
    sealed = [root / "manifests" / f"{stage}{end}" for end in (".json", ".jsonl")]
    told += [path for path in sealed if path.exists()]
    told_bytes = sum(path.stat().st_size for path in told)
    return Actual(
        stage, len(commits), objects, objects + len(told), sum(written.values()) + told_bytes,
        told_bytes, written, state.busy_s, state.peak_bytes,
    )  # fmt: skip


def totals(run: Run) -> tuple[int, int]:
    """Return objects and bytes of a run, all of them: also of states, seals and metadata."""
    root = local_path(run.uri)
    assert root is not None
    seen = [path for path in root.rglob("*") if path.is_file() and path.name[0] != "."]
    sizes = [path.stat().st_size for path in seen]
    return len(sizes), sum(sizes)
