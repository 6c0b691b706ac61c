"""Kinds of faults of a request, and which request one strikes."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

BEFORE = ("error 500", "reset", "503 thrice", "503 storm", "404", "hang", "kill before")
"""The request does not reach the server."""
AFTER = ("lost answer", "kill after")
"""The server has carried out the request; nobody hears of it."""
ANSWER = ("slow", "short body", "lying length", "flipped answer")
"""The answer's body is delayed or damaged on its way."""
REQUEST = ("flipped request",)
"""The request's body is damaged on its way."""

TIMES = {"503 thrice": 3, "503 storm": 10**6}
"""How many operations in a row a kind strikes, where that is not one; a storm never ends."""


class Operation(NamedTuple):
    """One request, as storage means it."""

    method: str
    """GET, HEAD, PUT, POST, DELETE, or LIST."""
    key: str
    """Of the object, below the bucket; of a listing, its prefix."""


def anything(_: Operation) -> bool:
    """Match every operation."""
    return True


@dataclass
class Fault:
    """What shall go wrong, and where."""

    kind: str
    at: int = 1
    """Strikes at this operation among those that match, counted from 1."""
    times: int = 0
    """And at so many in a row; 0 for as many as the kind has in `TIMES`."""
    matching: Callable[[Operation], bool] = anything
    seed: int = 0
    """Chooses which bit is flipped."""
    kill: Callable[[], None] | None = None
    """Ends the process under test, for the kinds that kill."""
    chance: float = 1.0
    """Of striking where it could."""
    seen: int = 0
    struck: list[Operation] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Refuse a kind that nothing would come of."""
        if self.kind not in (*BEFORE, *AFTER, *ANSWER, *REQUEST):
            raise ValueError(f"no fault of kind {self.kind!r}")
        self.times = self.times or TIMES.get(self.kind, 1)
        self._random = random.Random(self.seed)

    def strikes(self, operation: Operation) -> bool:
        """Count an operation and return whether it is the one."""
        if not self.matching(operation):
            return False
        self.seen += 1
        if not self.at <= self.seen < self.at + self.times:
            return False
        if self._random.random() >= self.chance:
            return False
        self.struck.append(operation)
        return True

    def flip(self, data: bytes) -> bytes:
        """Return `data` with one bit flipped."""
        damaged = bytearray(data)
        damaged[self._random.randrange(len(damaged))] ^= 1 << self._random.randrange(8)
        return bytes(damaged)
