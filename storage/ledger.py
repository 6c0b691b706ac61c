"""Which stages and blocks of a run are done: the truth that outlives every process.

Two kinds of entry. A *record* says that one unit is finished: created once, the same from whoever
computed it, so it holds no host, no time and no attempt. A *state* says how far a stage's driver
is: replaced every few seconds, for people and triggers to look at; no result depends on it.

::

    <run_uri>/state/<stage>.json
    <run_uri>/commits/<stage>/<phase>/<unit>.json

Imports neither zarr nor numpy: Airflow's triggerer reads states all day.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from storage import store
from storage.errors import ConflictError, CorruptError

Status = Literal["waiting", "running", "done", "failed"]
ErrorKind = Literal["config", "data", "storage", "other"]

_SUFFIX = ".json"


@dataclass(frozen=True)
class StageState:
    """Progress of one stage of a run, as its driver last reported it."""

    stage: str
    status: Status = "waiting"
    phase: str = ""
    """The part of the stage that is under way, in the stage's own words."""
    blocks_done: int = 0
    """Units of the present phase that have a record."""
    blocks_total: int = 0
    error: str | None = None
    error_kind: ErrorKind | None = None
    """Decides whether a retry can help: "config" and "data" never."""
    seconds: float = 0.0
    """Wall time of this driver so far."""
    bytes_read: int = 0
    bytes_written: int = 0
    heartbeat: float = 0.0
    """Seconds since 1970 by the driver's clock when it last reported."""

    @property
    def is_settled(self) -> bool:
        """Whether nothing more will happen: done or failed."""
        return self.status in ("done", "failed")

    def is_silent(self, now: float, timeout_s: float) -> bool:
        """Return whether the stage is said to run, but nobody has reported for `timeout_s`.

        A heartbeat that far in the future counts as silence too: the driver's clock was wrong,
        and waiting for ours to catch up could take for ever. At worst two drivers run, which wastes
        work and harms nothing.
        """
        return self.status == "running" and abs(now - self.heartbeat) > timeout_s


def read_state(run_uri: str, stage: str) -> StageState:
    """Return what the stage's driver last reported; "waiting" if there was none yet.

    Raises
    ------
    CorruptError
        If the object does not hold a state.
    """
    return _read_tagged(run_uri, stage)[0]


def write_state(run_uri: str, state: StageState) -> None:
    """Replace the state of ``state.stage``."""
    store.replace_json(_state_uri(run_uri, state.stage), asdict(state))


def claim(run_uri: str, stage: str, *, silent_after_s: float) -> bool:
    """Return True if the caller, and nobody else, may start a driver of the stage now.

    False while a driver is alive, and once the stage is done. A failed stage may be started again;
    a running one whose driver has not reported for `silent_after_s` too. Claiming counts as the
    new driver's first heartbeat, so it has `silent_after_s` to come up.
    """
    state, etag = _read_tagged(run_uri, stage)
    now = time.time()
    if state.status == "done":
        return False
    if state.status == "running" and not state.is_silent(now, silent_after_s):
        return False
    claimed = asdict(StageState(stage, "running", phase="starting", heartbeat=now))
    # Makes two claims of the same instant differ: a swap takes its own value for a lost answer.
    claimed["claim"] = uuid.uuid4().hex
    try:
        store.compare_and_swap_json(_state_uri(run_uri, stage), claimed, etag)
    except ConflictError:
        return False  # another caller was first
    return True


def record(run_uri: str, stage: str, phase: str, unit: str, value: dict[str, Any]) -> None:
    """Record that a unit is finished; after its output is written, never before.

    Parameters
    ----------
    unit : str
        Name of the unit, unique in the phase, for example `storage.grid.Box.label`.
    value : dict
        What identifies the output (digests, counts). Equal from every attempt.

    Raises
    ------
    ConflictError
        If the unit was recorded with another value: its computation depends on more than its
        inputs, which is a fault in the stage.
    """
    store.create_json(store.join(run_uri, "commits", stage, phase, unit + _SUFFIX), value)


def recorded(run_uri: str, stage: str, phase: str) -> set[str]:
    """Return the units of a phase that are finished; one listing, no reads."""
    names = store.list_names(store.join(run_uri, "commits", stage, phase))
    return {name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX)}


def read_records(
    run_uri: str, stage: str, phase: str, units: Iterable[str] | None = None
) -> dict[str, dict[str, Any]]:
    """Return the records of a phase by unit, sorted by unit; all of them, or those of `units`.

    Raises
    ------
    MissingError
        If one of `units` has no record.
    """
    folder = store.join(run_uri, "commits", stage, phase)
    wanted = sorted(recorded(run_uri, stage, phase) if units is None else units)
    with ThreadPoolExecutor(max_workers=16) as pool:  # waits for S3, not for a core
        values = pool.map(lambda unit: store.read_json(store.join(folder, unit + _SUFFIX)), wanted)
        return dict(zip(wanted, values, strict=True))


def _state_uri(run_uri: str, stage: str) -> str:
    return store.join(run_uri, "state", stage + _SUFFIX)


def _read_tagged(run_uri: str, stage: str) -> tuple[StageState, str | None]:
    uri = _state_uri(run_uri, stage)
    value, etag = store.read_json_tagged(uri)
    if etag is None:
        return StageState(stage), None
    known = {field.name for field in fields(StageState)}
    try:
        # Fields of a newer version are no reason to fail: the state only informs.
        return StageState(**{k: v for k, v in value.items() if k in known}), etag
    except (AttributeError, TypeError) as error:
        raise CorruptError(f"{uri} does not hold the state of a stage: {error}") from None
