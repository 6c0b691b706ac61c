"""What changed since the published version, and the run that brings just that up to date."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from alignment.changes import find_changes
from alignment.config import parse_config
from alignment.runs import load, prepare
from storage.publish import read_pointer
from storage.store import join, normalise_uri


def look(source: str, volume: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a source and its settings differ from what is published, as JSON values.

    The fields of `alignment.changes.Changes`, ``is_empty`` and ``sentence``.

    Raises
    ------
    ConfigError
        If a setting is unknown or out of range.
    SourceError, UriError
        If the source cannot be understood.
    """
    changes = find_changes(source, volume, settled(volume, settings))
    return {**changes.as_dict(), "sentence": changes.sentence}


def prepare_update(source: str, volume: str, settings: Mapping[str, Any]) -> str:
    """Freeze an update of the published run, or a first run, and return its URI."""
    return prepare(source, volume, settled(volume, settings), update=True)


def settled(volume: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the whole configuration: that of the published run, changed by `settings`.

    A volume that was aligned with settings of its own keeps them without anybody repeating them.

    Parameters
    ----------
    settings : mapping
        Nested, ``{stage: {name: value}}``.
    """
    volume_uri = normalise_uri(volume)
    pointer = read_pointer(volume_uri)
    config: dict[str, Any] = {}
    if pointer is not None:
        config = load(join(volume_uri, "runs", pointer.run)).config.model_dump(mode="json")
    for stage, values in settings.items():
        config[stage] = {**config.get(stage, {}), **values}
    return parse_config(config).model_dump(mode="json")
