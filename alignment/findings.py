"""Findings: what is wrong with a section as a whole, in words that a person can act on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from alignment.errors import DataError

Kind = Literal["mirrored", "swapped", "misplaced", "reversed", "duplicated", "unlinked"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with one section or a few."""

    kind: Kind
    sections: tuple[int, ...]
    """z of the sections that it is about."""
    score: float
    """How sure it is, 0..1: for an order, the share of the misfit of likenesses that it explains;
    for a double, how far from two sections it is; for a mirrored section, its mean correlation with
    those that it fits; 1 for an unlinked one, which is a fact."""
    order: tuple[int, ...] = ()
    """The stretch of the stack around them as it should be, for a wrong order; else empty."""
    detail: str = ""
    """A clause that ends the sentence: what was seen, or what was done about it."""

    @property
    def sentence(self) -> str:
        """Return the finding in words, with the suggestion if there is one.

        >>> Finding("swapped", (11, 12), 0.97, (10, 12, 11, 13)).sentence
        'sections 11 and 12 are swapped (score 0.97; suggested order: 10, 12, 11, 13)'
        """
        words = _WORDS[self.kind](self)
        facts = [] if self.kind == "unlinked" else [f"score {self.score:.2f}"]
        if self.order:
            facts.append(f"suggested order: {_listed(self.order)}")
        told = f"{words}: {self.detail}" if self.detail else words
        return f"{told} ({'; '.join(facts)})" if facts else told

    @property
    def where(self) -> str:
        """Return the sections, a long run by its ends.

        >>> Finding("unlinked", (25, 26, 27, 28), 1.0).where
        '25 to 28'
        """
        return _named(self.sections).partition(" ")[2]

    def as_dict(self) -> dict[str, Any]:
        """Return the finding as a record keeps it."""
        return {
            "kind": self.kind,
            "sections": list(self.sections),
            "score": round(self.score, 4),
            "order": list(self.order),
            "detail": self.detail,
            "sentence": self.sentence,
        }


def finding_of(record: Mapping[str, Any]) -> Finding:
    """Undo `Finding.as_dict`; DataError if there is no such kind."""
    kinds = get_args(Kind)
    if record["kind"] not in kinds:
        raise DataError(f"no finding of kind {record['kind']!r}; there are {', '.join(kinds)}")
    return Finding(
        record["kind"],
        tuple(record["sections"]),
        record["score"],
        tuple(record["order"]),
        record["detail"],
    )


def _mirrored(finding: Finding) -> str:
    return f"{_named(finding.sections)} {_is(finding.sections)} mirrored"


def _swapped(finding: Finding) -> str:
    first, second = finding.sections
    return f"sections {first} and {second} are swapped"


def _misplaced(finding: Finding) -> str:
    z, order = finding.sections, finding.order
    below = order[order.index(z[0]) - 1] if order[0] != z[0] else None
    above = order[order.index(z[-1]) + 1] if order[-1] != z[-1] else None
    words = f"{_named(z)} belong{'s' if len(z) == 1 else ''} "
    if below is None or above is None:
        return words + (f"before section {above}" if below is None else f"after section {below}")
    return words + f"between sections {below} and {above}"


def _reversed(finding: Finding) -> str:
    return f"{_named(finding.sections)} are in reversed order"


def _duplicated(finding: Finding) -> str:
    original, copy = finding.sections
    return f"section {copy} repeats section {original}"


def _unlinked(finding: Finding) -> str:
    if len(finding.sections) == 1:
        return f"section {finding.sections[0]} fits none of its neighbours"
    return f"{_named(finding.sections)} fit each other, but no other section"


_WORDS = {
    "mirrored": _mirrored,
    "swapped": _swapped,
    "misplaced": _misplaced,
    "reversed": _reversed,
    "duplicated": _duplicated,
    "unlinked": _unlinked,
}


def _is(z: Sequence[int]) -> str:
    return "is" if len(z) == 1 else "are"


def _named(z: Sequence[int]) -> str:
    if len(z) == 1:
        return f"section {z[0]}"
    low, high = min(z), max(z)
    if len(z) > 2 and high - low == len(z) - 1:
        return f"sections {low} to {high}"
    return f"sections {_listed(z[:-1])} and {z[-1]}"


def _listed(z: Sequence[int], most: int = 10) -> str:
    if len(z) <= most:
        return ", ".join(map(str, z))
    half = most // 2
    return f"{', '.join(map(str, z[:half]))}, ..., {', '.join(map(str, z[-half:]))}"
