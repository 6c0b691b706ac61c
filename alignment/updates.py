"""What an update of a published volume may change, and what it keeps bit for bit.

A run may be an *update* of the run that is published: it takes the places and the displacement
fields of sections far from any change as they are. So only what a new or changed section touches
is computed again, and everything else has the same bytes.

A section keeps its *place* (coarse affine) if it is the same as before and nothing that the coarse
stage hangs on was changed. It keeps its *field* if, beyond that, it lies more than
``update.junction_sections`` away from every section that does not, and nothing that relaxation
hangs on was changed. The sections between, the *junction*, are relaxed again, tied to the fields
of those that keep theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

TO_PLACE = ("ingest", "masks", "coarse")
"""Stages on which the places of sections hang."""
TO_RELAX = (*TO_PLACE, "features", "match", "filter", "relax")
"""Stages on which their fields hang."""
MODELS = (("features.model", "features"), ("filter.model", "model"), ("masks.network", "defects"))
"""Settings that name a file, and what is frozen of its content."""

Frozen = Mapping[str, Any]
"""What a run froze, as in its run.json."""


@dataclass(frozen=True)
class Base:
    """The run that another one updates."""

    run: str
    """Its key; it is a run of the same volume."""
    places: frozenset[int]
    """Sections that keep their places."""
    fields: frozenset[int]
    """Sections that keep their fields; places too."""

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return {"run": self.run, "places": sorted(self.places), "fields": sorted(self.fields)}

    @classmethod
    def of(cls, value: Mapping[str, Any]) -> Base:
        """Return what `as_dict` gave."""
        return cls(value["run"], frozenset(value["places"]), frozenset(value["fields"]))


def base_of(key: str, before: Frozen, now: Frozen) -> Base:
    """Return what of run `key` a new run keeps.

    Parameters
    ----------
    before, now : mapping
        What both runs froze: ``source``, ``shape``, ``config``, ``stages``, ``provenance``.
    """
    nz = now["shape"][0]
    same = frozenset(z for z in range(nz) if z in unchanged_sections(before, now))
    if before["shape"][1:] != now["shape"][1:] or altered(before, now, TO_PLACE):
        return Base(key, frozenset(), frozenset())
    if altered(before, now, TO_RELAX):
        return Base(key, same, frozenset())
    reach = now["config"]["update"]["junction_sections"]
    anew = [z for z in range(max(nz, before["shape"][0])) if z not in same]
    far = frozenset(z for z in same if all(abs(z - other) > reach for other in anew))
    return Base(key, same, far)


def is_same_work(before: Frozen, now: Frozen) -> bool:
    """Return whether a new run would give just what an earlier one gave."""
    same = len(unchanged_sections(before, now)) == now["shape"][0] == before["shape"][0]
    layout = before["resolution_nm"] == now["resolution_nm"]
    return same and layout and not changed_settings(before, now) and not changed_code(before, now)


def unchanged_sections(before: Frozen, now: Frozen) -> frozenset[int]:
    """Return the sections that are the same, at the same z, in two runs."""
    return frozenset(
        z
        for z, (one, other) in enumerate(zip(identities(before), identities(now), strict=False))
        if one == other
    )


def identities(frozen: Frozen) -> list[tuple[str, str]]:
    """Return what identifies each section and what was drawn over it by hand."""
    sections = frozen["source"]["sections"]
    drawn = frozen.get("drawn") or {"sections": [""] * len(sections)}
    return list(zip(sections, drawn["sections"], strict=True))


def altered(before: Frozen, now: Frozen, stages: tuple[str, ...]) -> bool:
    """Return whether settings, code or libraries of some stages differ between two runs."""
    return bool(
        [name for name in changed_settings(before, now) if name.partition(".")[0] in stages]
        or [stage for stage in changed_code(before, now) if stage in stages]
    )


def changed_settings(before: Frozen, now: Frozen) -> tuple[str, ...]:
    """Return the settings ``stage.name`` that differ; those of cutting and of updates do not count.

    How arrays are cut changes no voxel; units say for themselves if they hang on it. Drawn masks
    and models count by their content, wherever it lies.
    """
    ignored = ("update.", "volume.slab_sections", "volume.read_back", "masks.drawn")
    named = [setting for setting, _ in MODELS]
    names = []
    for stage, values in now["config"].items():
        old = before["config"].get(stage, {})
        names += [
            f"{stage}.{name}"
            for name in sorted({*values, *old})
            if old.get(name) != values.get(name)
        ]
    models = [setting for setting, name in MODELS if before.get(name) != now.get(name)]
    counting = [name for name in names if not name.startswith(ignored) and name not in named]
    return (*counting, *models)


def changed_code(before: Frozen, now: Frozen) -> tuple[str, ...]:
    """Return the stages whose code differs; all of them if a library does."""
    stages = now["stages"]
    if before["provenance"]["libraries"] != now["provenance"]["libraries"]:
        return tuple(stages)
    old = before.get("stages", {})
    return tuple(stage for stage in stages if old.get(stage) != stages[stage])
