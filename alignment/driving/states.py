"""How far the stages of a run are: what the drivers of a stage and of its slabs say, summed up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from alignment.driving.kinds import stages_of
from storage.ledger import FOLDER, StageState, Status, read_state, stage_of
from storage.store import join, list_names


def stage_states(run_uri: str) -> list[StageState]:
    """Return the state of every stage, in order; what nobody has begun costs no request."""
    begun: dict[str, list[str]] = {}
    for file in list_names(join(run_uri, FOLDER)):
        name = file.removesuffix(".json")
        begun.setdefault(stage_of(name), []).append(name)
    stages = stages_of(run_uri)
    return [_stage_state(run_uri, stage, begun.get(stage, [])) for stage in stages]


def _stage_state(run_uri: str, stage: str, names: Iterable[str]) -> StageState:
    states = {name: read_state(run_uri, name) for name in names}
    whole = states.pop(stage, StageState(stage))
    return summed(whole, list(states.values())) if states else whole


def summed(whole: StageState, slabs: list[StageState]) -> StageState:
    """Return the state of a stage whose slabs have drivers of their own.

    The driver that finishes the stage counts all units; before it there are those of the slabs.
    `seconds` is the time during which at least one driver was at work.
    """
    parts = [whole, *slabs]
    failed = next((each for each in parts if each.status == "failed"), None)
    status = _status(whole, slabs)
    at_work = [each for each in parts if each.status == "running"]
    told = failed if status == "failed" else None
    return replace(
        whole,
        status=status,
        phase=at_work[0].phase if at_work else "",
        blocks_done=max(whole.blocks_done, sum(each.blocks_done for each in slabs)),
        blocks_total=max(whole.blocks_total, sum(each.blocks_total for each in slabs)),
        blocks_reused=sum(each.blocks_reused for each in parts),
        bytes_read=sum(each.bytes_read for each in parts),
        bytes_written=sum(each.bytes_written for each in parts),
        busy_s=sum(each.busy_s for each in parts),
        peak_bytes=max(each.peak_bytes for each in parts),
        error=told.error if told else None,
        error_kind=told.error_kind if told else None,
        seconds=_covered_s((each.heartbeat - each.seconds, each.heartbeat) for each in parts),
        heartbeat=max(each.heartbeat for each in parts),
    )


def _status(whole: StageState, slabs: list[StageState]) -> Status:
    if whole.status == "done":
        return "done"
    found = {each.status for each in (whole, *slabs)}
    if "running" in found:
        return "running"
    if "failed" in found:
        return "failed"
    return "running" if "done" in found else "waiting"


def _covered_s(spans: Iterable[tuple[float, float]]) -> float:
    """Return the length of the union of spans.

    >>> _covered_s([(0, 2), (1, 3), (10, 11)])
    4.0
    """
    covered, end = 0.0, float("-inf")
    for start, stop in sorted(spans):
        covered += max(stop - max(start, end), 0.0)
        end = max(end, stop)
    return covered
