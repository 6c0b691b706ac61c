"""How far the stages of a run are, and who drives each: for people, triggers and drivers.

A *state* says what a stage's driver last reported. No result depends on it: what is finished is
told by `storage.commit.records`. A driver holds its stage by a *lease*: every report is a
compare-and-swap on the state, so a driver that was taken for dead learns at its next report that
another has taken over, and stops. Leases save work; two drivers at once would harm nothing.

Whether a driver is silent is measured by the store's own clock, never by this machine's.

::

    <run_uri>/state/<stage>.json
    <run_uri>/state/<stage>.<slab>.json   of a slab that has a driver of its own

Where a function takes the name of a stage, it takes that of a slab of one, too.

Imports neither zarr nor numpy: Airflow's triggerer reads states all day.
"""

from __future__ import annotations

import time
import uuid
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Literal

from storage import store
from storage.errors import ConflictError, CorruptError, MissingError

Status = Literal["waiting", "running", "done", "failed"]
ErrorKind = Literal["config", "data", "storage", "other"]

FOLDER = "state"
SIGN = "seen"
"""Name of the entry that `touch` leaves; no stage is called so."""
_SUFFIX = ".json"
_ATTEMPTS = 20


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
    blocks_reused: int = 0
    """Units that were taken over from an earlier run by all drivers so far."""
    error: str | None = None
    error_kind: ErrorKind | None = None
    """Decides whether a retry can help: "config" and "data" never."""
    seconds: float = 0.0
    """Wall time of this driver so far."""
    bytes_read: int = 0
    bytes_written: int = 0
    busy_s: float = 0.0
    """Processor time of all finished units."""
    peak_bytes: int = 0
    """Most memory that a worker held while it did a unit, resident."""
    heartbeat: float = 0.0
    """Seconds since 1970 by the driver's clock when it last reported; for people only."""
    units_done: bool = False
    """Of a slab: all its units have records, and what is left is about the whole stage."""
    finisher: str = ""
    """Of a stage in slabs: the slab whose driver does what is left when all slabs are done."""
    epoch: int = 0
    """How often the stage was taken by a driver."""
    holder: str = field(default="", compare=False)
    """A random name of the driver that has the stage, or of who claimed it for one."""

    @property
    def is_settled(self) -> bool:
        """Whether nothing more will happen: done or failed."""
        return self.status in ("done", "failed")


def stage_of(name: str) -> str:
    """Return the stage to which a state belongs, its own or that of a slab.

    >>> stage_of("match.z000064"), stage_of("match")
    ('match', 'match')
    """
    return name.partition(".")[0]


class Lease:
    """The right to report on a stage, until somebody else takes it."""

    def __init__(self, run_uri: str, state: StageState, etag: str | None) -> None:
        self._uri = _state_uri(run_uri, state.stage)
        self._etag = etag
        self.state = state

    def report(self, state: StageState) -> None:
        """Write the state.

        Raises
        ------
        ConflictError
            If another driver took the stage, or somebody settled it: stop working.
        """
        held = replace(state, epoch=self.state.epoch, holder=self.state.holder)
        try:
            self._etag = store.compare_and_swap_json(self._uri, asdict(held), self._etag)
        except ConflictError:
            raise ConflictError(
                f"{self._uri} was written by somebody else: another driver took the stage over, or "
                "a user stopped it"
            ) from None
        self.state = held


def read_state(run_uri: str, stage: str) -> StageState:
    """Return what the stage's driver last reported; "waiting" if there was none yet.

    Raises
    ------
    CorruptError
        If the object does not hold a state.
    """
    return _read_tagged(run_uri, stage)[0]


def write_state(run_uri: str, state: StageState) -> None:
    """Replace the state of ``state.stage``, whoever holds it; its driver will stop."""
    # A name of its own, so that the holder's next swap cannot take this for its lost answer.
    store.replace_json(
        _state_uri(run_uri, state.stage), asdict(replace(state, holder=uuid.uuid4().hex))
    )


def take(run_uri: str, stage: str) -> Lease:
    """Take a stage, from whoever has it: called by the driver itself as it begins."""
    for _ in range(_ATTEMPTS):
        state, etag = _read_tagged(run_uri, stage)
        taken = replace(state, epoch=state.epoch + 1, holder=uuid.uuid4().hex)
        try:
            etag = store.compare_and_swap_json(_state_uri(run_uri, stage), asdict(taken), etag)
        except ConflictError:
            continue
        return Lease(run_uri, taken, etag)
    raise ConflictError(f"{_state_uri(run_uri, stage)} changed {_ATTEMPTS} times while it was read")


def claim(
    run_uri: str, stage: str, *, silent_after_s: float, redo: bool = False, finisher: str = ""
) -> bool:
    """Return True if the caller, and nobody else, may start a driver of the stage now.

    False while a driver is alive, and once the stage is done. A failed stage may be started again;
    a running one whose driver has not reported for `silent_after_s` too. Claiming counts as the
    new driver's first heartbeat, so it has `silent_after_s` to come up.

    Parameters
    ----------
    redo : bool
        True if a driver is wanted even where one is done.
    finisher : str
        The slab for whose driver the stage is claimed.
    """
    state, etag = _read_tagged(run_uri, stage)
    if state.status == "done" and not redo:
        return False
    if state.status == "running" and silence_s(run_uri, stage) <= silent_after_s:
        return False
    claimed = StageState(
        stage,
        "running",
        phase="starting",
        heartbeat=time.time(),
        finisher=finisher,
        epoch=state.epoch + 1,
        # Makes two claims of the same instant differ: a swap takes its own value for a lost answer.
        holder=uuid.uuid4().hex,
    )
    try:
        store.compare_and_swap_json(_state_uri(run_uri, stage), asdict(claimed), etag)
    except ConflictError:
        return False  # another caller was first
    return True


def stop(run_uri: str, stage: str, reason: str) -> None:
    """Settle a stage that is under way as failed, so that it can be claimed again at once.

    A driver that is alive learns of it at its next report and ends; finished units are kept.
    """
    for _ in range(_ATTEMPTS):
        state, etag = _read_tagged(run_uri, stage)
        if state.is_settled:
            return
        stopped = replace(
            state, status="failed", error=reason, error_kind="other", holder=uuid.uuid4().hex
        )
        try:
            store.compare_and_swap_json(_state_uri(run_uri, stage), asdict(stopped), etag)
            return
        except ConflictError:
            continue
    raise ConflictError(f"{_state_uri(run_uri, stage)} changed {_ATTEMPTS} times while it was read")


def touch(run_uri: str) -> None:
    """Leave a sign that somebody wants the run: it is not deleted for a while."""
    store.replace_json(_state_uri(run_uri, SIGN), {"seen": uuid.uuid4().hex})


def silence_s(run_uri: str, stage: str) -> float:
    """Return for how many seconds nobody has reported on a stage, by the store's own clock."""
    try:
        return store.age_s(_state_uri(run_uri, stage))
    except MissingError:
        return float("inf")


def _state_uri(run_uri: str, stage: str) -> str:
    return store.join(run_uri, FOLDER, stage + _SUFFIX)


def _read_tagged(run_uri: str, stage: str) -> tuple[StageState, str | None]:
    uri = _state_uri(run_uri, stage)
    value, etag = store.read_json_tagged(uri)
    if etag is None:
        return StageState(stage), None
    known = {each.name for each in fields(StageState)}
    try:
        # Fields of a newer version are no reason to fail: the state only informs.
        return StageState(**{k: v for k, v in value.items() if k in known}), etag
    except (AttributeError, TypeError) as error:
        raise CorruptError(f"{uri} does not hold the state of a stage: {error}") from None
