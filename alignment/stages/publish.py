"""Stage "publish": readers see the new version, whole, from one moment to the next."""

from __future__ import annotations

from collections.abc import Iterator

from alignment.errors import DataError
from alignment.runs import Run, load
from alignment.stages.order import ORDER
from alignment.stages.units import Phase, Record, Whole
from storage.publish import publish, read_pointer


def phases(run: Run) -> Iterator[Phase]:
    """Yield the one compare-and-swap."""
    yield Phase("pointer", [Whole()], publish_run, always=True)


def publish_run(_: Whole, *, run_uri: str) -> Record:
    """Point ``LATEST.json`` of the volume at this run.

    Raises
    ------
    DataError
        If this is an update, and the run that it updates is not the published one any more: what
        was published since would be lost.
    """
    run = load(run_uri)
    seen = read_pointer(run.volume_uri)
    if run.base and seen and seen.run not in (run.base.run, run.key):
        raise DataError(
            f"run {run.key} updates run {run.base.run}, but since it began run {seen.run} was "
            f"published (epoch {seen.epoch}). Start the update again: it takes over what is done"
        )
    expected = seen.epoch if run.base and seen else None
    stages = ORDER[: ORDER.index("publish")]
    publish(run.volume_uri, run.key, expected_epoch=expected, stages=stages)
    return {"run": run.key}
