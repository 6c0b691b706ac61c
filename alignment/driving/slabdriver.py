"""One slab of a stage: its own units first; who is last does what is left of the whole stage.

A slab's driver does the units of its sections in the phases that need no other slab
(`Phase.local`), says so in the ledger, and looks whether all others have said so. If so, it claims
the stage itself and runs what is left, the seal at the end, as a driver without slabs would. Of two
that finish at the same moment both see the other, and the claim lets one of them through. So no
further task joins the slabs, and nothing waits for them.

A slab counts as done when its stage is sealed, or when another slab's driver will see to that: its
state stays "running" while its own driver finishes the stage, so if that dies, its task's retry
goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from alignment.blockwise import Client, driver_client
from alignment.driving.progress import Progress, driving
from alignment.driving.slabs import Slab, slabs_of, state_name
from alignment.errors import ConfigError, StageFailed
from alignment.runs import Run, check_kept, load
from alignment.stages.runner import check_stage, noted_phases, run_phases, run_stage
from alignment.stages.units import Phase
from storage import ledger
from storage.journal import Journal
from storage.store import join, list_names

MAX_UNITS = 100_000
"""Of a phase of a slab: with more, the driver and Dask's scheduler would be the bottleneck."""
SILENT_AFTER_S = 120.0
"""After so long without a heartbeat a driver from elsewhere, which had the stage, is given up."""
POLL_S = 1.0
TAKEN_OVER = "all slabs are done; another driver took over what is left of the stage"

Tell = Callable[[ledger.StageState], None]


def run_slab(stage: str, run_uri: str, label: str) -> int:
    """Drive a slab from inside a Dask worker; return the number of its finished units.

    As `alignment.stages.run`, it never raises for what failed: the ledger says so.
    """
    with driver_client() as client:
        try:
            return drive_slab(stage, run_uri, label, client)
        except StageFailed:
            return ledger.read_state(run_uri, state_name(stage, label)).blocks_done


def drive_slab(
    stage: str,
    run_uri: str,
    label: str,
    client: Client,
    *,
    tell: Tell | None = None,
    reuse: bool = True,
) -> int:
    """Do the units of a slab that have no record, and the rest of the stage if it is the last.

    Parameters
    ----------
    stage, run_uri, client, tell, reuse
        As in `alignment.stages.runner.run_stage`.
    label : str
        Of the slab: `Slab.label`.

    Returns
    -------
    int
        Finished units of the slab.

    Raises
    ------
    ConfigError
        If there is no such stage or slab.
    StageFailed
        If units failed; the others are done, and the ledger holds the same message.
    """
    check_stage(stage)
    slab, name = Slab.parse(label), state_name(stage, label)
    progress = Progress(run_uri, name, tell)
    with driving(progress):
        run = load(run_uri)
        check_kept(run.volume_uri, run.key)
        if slab not in _slabs(run):
            known = ", ".join(each.label for each in _slabs(run))
            raise ConfigError(f"the volume has no slab {label!r}; its slabs are {known}")
        own = replace(run, slab=slab.sections)
        phases = own_phases(noted_phases(stage, own, Journal()), own)
        run_phases(stage, own, client, progress, phases, reuse=reuse)
        progress.change(units_done=True, phase="waiting for the other slabs")
        if _are_all_done(run, stage) and _claim(run_uri, stage, name):
            progress.change(phase="finishing the stage")
            _finish(stage, run_uri, client, progress, reuse=reuse)
        progress.settle(status="done")
    return progress.state.blocks_done


def own_phases(phases: Iterable[Phase], run: Run) -> Iterator[Phase]:
    """Yield the leading local phases of a stage, with the units of the run's slab."""
    for phase in phases:
        if not phase.local:
            return
        units = [unit for unit in phase.units if run.owns(unit.z)]  # type: ignore[attr-defined]
        if len(units) > MAX_UNITS:
            raise ConfigError(
                f"phase {phase.name!r} of a slab of {len(run.slab or ())} sections has "
                f"{len(units):,} units; a driver handles {MAX_UNITS:,}. Lower "
                f"volume.slab_sections={run.config.volume.slab_sections}"
            )
        yield replace(phase, units=units)


def _slabs(run: Run) -> list[Slab]:
    return slabs_of(run.shape[0], run.config.volume.slab_depth)


def _are_all_done(run: Run, stage: str) -> bool:
    """Return whether the units of all slabs have records, by what their drivers said."""
    names = [state_name(stage, slab.label) for slab in _slabs(run)]
    begun = list_names(join(run.uri, ledger.FOLDER))
    if not {f"{name}.json" for name in names} <= set(begun):
        return False
    states = (ledger.read_state(run.uri, name) for name in names)
    return all(state.units_done for state in states)


def _claim(run_uri: str, stage: str, name: str) -> bool:
    """Return whether this slab's driver shall finish the stage.

    Another slab's that has claimed it will: its task waits for it, or starts it again. A driver of
    the whole stage, such as ``petalign resume`` starts, has nobody behind it, so it is waited for.
    """
    while not ledger.claim(run_uri, stage, silent_after_s=SILENT_AFTER_S, finisher=name):
        state = ledger.read_state(run_uri, stage)
        if state.status == "done":
            return False
        if state.finisher:
            return state.finisher == name  # then an earlier attempt's, which is dead
        time.sleep(POLL_S)
    return True


def _finish(stage: str, run_uri: str, client: Client, progress: Progress, *, reuse: bool) -> None:
    try:
        run_stage(stage, run_uri, client, reuse=reuse)
    except StageFailed:
        state = ledger.read_state(run_uri, stage)
        if state.status == "failed":
            progress.settle(status="failed", error=state.error, error_kind=state.error_kind)
        else:
            progress.settle(status="failed", error=TAKEN_OVER, error_kind="other")
        raise
