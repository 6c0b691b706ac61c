"""What differs between a source, with its settings, and what is published of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from alignment.runs import define, definition
from alignment.updates import Frozen, changed_code, changed_settings, identities
from storage.publish import read_pointer
from storage.store import join, normalise_uri


@dataclass(frozen=True)
class Changes:
    """The difference, in names of sections and settings."""

    base: str
    """Key of the published run; empty if nothing is published."""
    new: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    """Imaged again, or masked anew by hand: the same name with other content."""
    removed: tuple[str, ...] = ()
    moved: tuple[str, ...] = ()
    """The same content at another z: a section before them came or went."""
    settings: tuple[str, ...] = ()
    """As ``relax.stiffness``."""
    code: tuple[str, ...] = ()
    """Stages that another version of the program, or of a library, computes."""

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to do; a newer program alone is no reason to do anything."""
        return bool(self.base) and not (
            self.new or self.changed or self.removed or self.moved or self.settings
        )

    def as_dict(self) -> dict[str, Any]:
        """Return it for a JSON document."""
        return {**asdict(self), "is_empty": self.is_empty}

    @property
    def sentence(self) -> str:
        """Say it to a person."""
        if not self.base:
            return f"nothing is published yet; {len(self.new)} sections are new"
        told = [
            f"{len(names)} {what}{'s' * (len(names) > 1)} ({_shortened(names)})"
            for what, names in (
                ("new section", self.new),
                ("changed section", self.changed),
                ("removed section", self.removed),
                ("moved section", self.moved),
                ("other setting", self.settings),
                ("newer stage", self.code),
            )
            if names
        ]
        return "; ".join(told) or "nothing changed"


def find_changes(source: str, volume: str, config: Mapping[str, Any] | None = None) -> Changes:
    """Compare a source and its settings with the run that is published of a volume.

    Sections are told apart by name and fingerprint; no voxel is read.

    Raises
    ------
    ConfigError, SourceError, UriError, DataError
        As `alignment.runs.prepare`.
    """
    now = define(source, config)
    volume_uri = normalise_uri(volume)
    pointer = read_pointer(volume_uri)
    if pointer is None:
        return Changes("", new=tuple(now["section_names"]))
    return compare(pointer.run, definition(join(volume_uri, "runs", pointer.run)), now)


def compare(base: str, before: Frozen, now: Frozen) -> Changes:
    """Return what differs between what run `base` froze and what a new run would."""
    old, new = (
        {name: (z, identity) for z, (name, identity) in enumerate(_named(frozen))}
        for frozen in (before, now)
    )
    both = [name for name in new if name in old]
    resolution = before["resolution_nm"] != now["resolution_nm"]
    return Changes(
        base,
        new=tuple(name for name in new if name not in old),
        changed=tuple(name for name in both if old[name][1] != new[name][1]),
        removed=tuple(name for name in old if name not in new),
        moved=tuple(
            name for name in both if old[name][0] != new[name][0] and old[name][1] == new[name][1]
        ),
        settings=(*changed_settings(before, now), *(["volume.resolution_nm"] * resolution)),
        code=changed_code(before, now),
    )


def _shortened(names: tuple[str, ...]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _named(frozen: Frozen) -> list[tuple[str, tuple[str, str]]]:
    return list(zip(frozen["section_names"], identities(frozen), strict=True))
