"""Units of work: each is done once, writes whole objects, and leaves one record."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

Record = dict[str, Any]
"""What a unit leaves behind: digests and counts, no host and no time, so repeats are identical."""


class Unit(Protocol):
    """Anything with a label that is safe in object keys and unique within its phase."""

    @property
    def label(self) -> str:
        """Return the unit's name."""


class Section(NamedTuple):
    """One section."""

    z: int

    @property
    def label(self) -> str:
        """Return the section's name, sorted as z."""
        return f"z{self.z:06d}"


class Pair(NamedTuple):
    """Moving section z against fixed section z - d."""

    z: int
    d: int

    @property
    def label(self) -> str:
        """Return the pair's name, sorted as z."""
        return f"z{self.z:06d}_d{self.d}"


class NodeBlock(NamedTuple):
    """Nodes [i0, i1) x [j0, j1) of a pair's grid of matches."""

    z: int
    d: int
    i0: int
    j0: int
    i1: int
    j1: int

    @property
    def label(self) -> str:
        """Return the block's name, sorted as z."""
        return f"z{self.z:06d}_d{self.d}_i{self.i0}_j{self.j0}"


class Whole(NamedTuple):
    """The whole stack at once."""

    @property
    def label(self) -> str:
        """Return the only name there is."""
        return "all"


class Ref(NamedTuple):
    """What another unit made, as an input of a unit: it enters the key by its content."""

    stage: str
    phase: str
    unit: str
    below: str = ""
    """Only its objects whose path begins so; all that it made without this."""


Inputs = Callable[..., Iterable[Ref | str]]
"""Called as ``inputs(unit, run_uri=...)``; a str is a fact that is its own digest."""


def no_inputs(_: Unit, *, run_uri: str) -> Iterable[Ref | str]:
    """Return that a unit reads nothing of the run."""
    return ()


@dataclass(frozen=True)
class Phase:
    """Units that may run in any order and at the same time."""

    name: str
    units: Sequence[Unit]
    work: Callable[..., Record]
    """Called as ``work(unit, run_uri=...)`` on a worker; returns the unit's record."""
    inputs: Inputs = no_inputs
    """What a unit reads, all of it: a unit whose inputs are as before need not be done again."""
    parameters: tuple[str, ...] = ()
    """Sections of the configuration on which the units' results depend."""
    local: bool = False
    """True: a unit needs, of this stage, only units of its own slab of sections. The local phases
    that a stage begins with can be done slab by slab (`alignment.driving.slabdriver`)."""
    always: bool = False
    """True: done again even if it has a record (cheap, idempotent, and about mutable things)."""
