"""What a run took and left, to be held against its plan, and to calibrate the next one."""

from __future__ import annotations

from dataclasses import dataclass

from alignment.planning.plans import StagePlan, guess_of, plan_stages
from alignment.planning.rates import Rates, Sample
from alignment.planning.stack import Guess, Stack
from alignment.runs import Run
from alignment.stages import inputs, matched
from alignment.stages.order import ORDER
from storage import ledger, store
from storage.commit import manifest, records
from storage.errors import StorageError


@dataclass(frozen=True)
class Outcome:
    """One stage as it was planned and as it came; None where it is not known."""

    stage: str
    planned: StagePlan
    units: int | None
    objects: int | None
    """Data objects: records, and what sums them up, are left out on both sides."""
    bytes_written: int | None
    """Of the data objects, in the store."""
    busy_s: float | None
    peak_bytes: int | None


def seen(run: Run) -> Stack:
    """Return a run's stack with all that was a guess before it ran."""
    guess = Guess(inputs.coarse(run.uri).canvas, len(inputs.missing(run.uri)))
    stack = Stack(run.shape, run.config, guess)
    again = sum(
        len(records.recorded(run.uri, "match", matched.round_phase(0, retry=k)))
        for k in stack.retries
    )
    could = sum(stack.retry_pairs) * stack.blocks
    phases = store.list_names(store.join(run.uri, records.FOLDER, "relax"))
    sweeps = {phase.split("-")[1] for phase in phases if phase.startswith("sweep-")}
    return Stack(
        run.shape,
        run.config,
        Guess(guess.canvas, guess.missing, again / could if could else 0.0, len(sweeps)),
    )


def taken(run: Run) -> list[Sample]:
    """Return what the stages of a run took, by its ledger."""
    stack = seen(run)
    states = [ledger.read_state(run.uri, stage) for stage in ORDER]
    return [
        Sample(stack, state.stage, state.busy_s, state.peak_bytes)
        for state in states
        if state.busy_s > 0 and not state.blocks_reused
    ]


def outcomes(run: Run, rates: Rates) -> tuple[Outcome, ...]:
    """Return every stage as planned and as it came.

    The plan is made anew, of the run's shape and configuration alone, as it could have been made
    before it ran.
    """
    stack = Stack(run.shape, run.config, guess_of(rates))
    planned = plan_stages(stack, rates, rates.stored)
    return tuple(_outcome(run, stage) for stage in planned)


def _outcome(run: Run, planned: StagePlan) -> Outcome:
    state = ledger.read_state(run.uri, planned.stage)
    units = state.blocks_done if state.blocks_total else None
    objects: int | None
    written: int | None
    try:
        sealed = manifest.read_seal(run.uri, planned.stage)
        objects = sealed.objects - len(sealed.metadata)
        written = sealed.bytes
    except StorageError:  # the stage is not finished, as the one that writes the report
        objects = written = None
    return Outcome(
        planned.stage,
        planned,
        units,
        objects,
        written,
        state.busy_s or None,
        state.peak_bytes or None,
    )
