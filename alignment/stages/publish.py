"""Stage "publish": readers see the new version, whole, from one moment to the next."""

from __future__ import annotations

from collections.abc import Iterator

from alignment.runs import Run, load
from alignment.stages.order import ORDER
from alignment.stages.units import Phase, Record, Whole
from storage.publish import publish


def phases(run: Run) -> Iterator[Phase]:
    """Yield the one compare-and-swap."""
    yield Phase("pointer", [Whole()], publish_run, always=True)


def publish_run(_: Whole, *, run_uri: str) -> Record:
    """Point ``LATEST.json`` of the volume at this run."""
    run = load(run_uri)
    publish(run.volume_uri, run.key, stages=ORDER[: ORDER.index("publish")])
    return {"run": run.key}
