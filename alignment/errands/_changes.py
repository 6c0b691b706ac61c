"""What differs between a source and the published run. To be replaced by `alignment.changes`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from alignment.config import PipelineConfig, parse_config
from alignment.runs import load
from storage.provenance import provenance
from storage.publish import read_pointer
from storage.sections import open_source
from storage.store import join, normalise_uri, read_json


@dataclass(frozen=True)
class Changes:
    """What differs; names of sections and settings."""

    base: str
    new: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    code: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing differs."""
        return not (self.new or self.changed or self.removed or self.settings or self.code)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return asdict(self)


def find_changes(source: str, volume: str, config: Mapping[str, Any] | None = None) -> Changes:
    """Compare a source and settings with the published run of a volume."""
    opened = open_source(normalise_uri(source))
    now = dict(zip(opened.names, opened.describe()["sections"], strict=True))
    pointer = read_pointer(normalise_uri(volume))
    if pointer is None:
        return Changes("", new=tuple(now))
    run_uri = join(normalise_uri(volume), "runs", pointer.run)
    run = load(run_uri)
    then = dict(
        zip(
            run.section_names,
            read_json(join(run_uri, "run.json"))["source"]["sections"],
            strict=True,
        )
    )
    return Changes(
        pointer.run,
        new=tuple(name for name in now if name not in then),
        changed=tuple(name for name in now if name in then and now[name] != then[name]),
        removed=tuple(name for name in then if name not in now),
        settings=_differing(run.config, parse_config(dict(config or {}))),
        code=dict(run.provenance) != provenance(),
    )


def _differing(a: PipelineConfig, b: PipelineConfig) -> tuple[str, ...]:
    old, new = a.model_dump(mode="json"), b.model_dump(mode="json")
    return tuple(
        f"{stage}.{name}"
        for stage in new
        for name in new[stage]
        if old[stage][name] != new[stage][name]
    )
