"""What a run took and left, to be held against its plan, and to calibrate the next one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from alignment.driving.states import stage_states
from alignment.planning.marking import marking_of
from alignment.planning.networks import network_of
from alignment.planning.plans import StagePlan, guess_of, plan_stages
from alignment.planning.rates import Rates, Sample
from alignment.planning.stack import Guess, Stack
from alignment.report_data import Resources
from alignment.runs import Run
from alignment.stages import inputs, matched
from alignment.stages.units import Whole
from storage import store
from storage.commit import manifest, records
from storage.errors import StorageError
from storage.ledger import StageState


def seen(run: Run) -> Stack:
    """Return a run's stack with all that was a guess before it ran."""
    solved = records.read_commit(run.uri, "coarse", "solve", Whole().label).value
    guess = Guess(tuple(solved["canvas"]), len(inputs.missing(run.uri)))
    stack = Stack(run.shape, run.config, guess, network_of(run), marking_of(run))
    again = sum(
        len(records.recorded(run.uri, "match", matched.round_phase(0, retry=k)))
        for k in stack.retries
    )
    could = sum(stack.retry_pairs) * stack.blocks
    phases = store.list_names(store.join(run.uri, records.FOLDER, "relax"))
    sweeps = {phase.split("-")[1] for phase in phases if phase.startswith("sweep-")}
    retried = again / could if could else 0.0
    return replace(stack, guess=replace(guess, retried=retried, sweeps=len(sweeps)))


def taken(run: Run) -> list[Sample]:
    """Return what the stages of a run took, by its ledger.

    Without what was made by a network that is no longer there.
    """
    stack = seen(run)
    return [
        Sample(stack, state.stage, state.busy_s, state.peak_bytes)
        for state in stage_states(run.uri)
        if state.busy_s > 0 and not state.blocks_reused and _is_known(state.stage, stack)
    ]


def _is_known(stage: str, stack: Stack) -> bool:
    """Return whether the networks of a stage are known, which its time and memory hang on."""
    if stage == "masks":
        return not stack.config.masks.network or stack.marking is not None
    is_band_pass = stack.config.features.kind == "bandpass"
    return stage != "features" or is_band_pass or stack.network is not None


def outcomes(
    run: Run, states: Iterable[StageState], rates: Rates
) -> dict[str, tuple[Resources, Resources]]:
    """Return what every stage was planned to take, and what it took.

    The plan is made anew, of the run's shape and configuration alone, as it could have been made
    before it ran; it is no part of the run.

    Parameters
    ----------
    states : iterable of StageState
        Of all stages, from the ledger.
    """
    stack = Stack(run.shape, run.config, guess_of(rates), network_of(run), marking_of(run))
    planned = {
        stage.stage: _planned(stage, known=_is_known(stage.stage, stack))
        for stage in plan_stages(stack, rates, rates.stored)
    }
    return {state.stage: (planned[state.stage], _actual(run, state)) for state in states}


def _planned(stage: StagePlan, *, known: bool) -> Resources:
    return Resources(
        stage.units,
        stage.data_objects,
        stage.data_bytes,
        stage.core_s if known else None,
        stage.peak_bytes if known else None,
    )


def _actual(run: Run, state: StageState) -> Resources:
    try:
        sealed = manifest.read_seal(run.uri, state.stage)
        objects, size = sealed.objects - len(sealed.metadata), sealed.bytes
    except StorageError:  # not finished, as the stage that writes the report
        return Resources()
    # Units that were taken over from another run cost nothing, which says nothing of the plan.
    known = state.busy_s > 0 and not state.blocks_reused
    return Resources(
        sealed.units,
        objects,
        size,
        state.busy_s if known else None,
        state.peak_bytes if known else None,
    )
