"""Options that several verbs share, and the configuration that they give."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from alignment.config import PipelineConfig, load_config
from alignment.errors import ConfigError

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="YAML made by `petalign init`; defaults without it."),
]
TrainingFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML; defaults without it.")
]
Labelled = Annotated[
    str, typer.Argument(help="Has images and labels, see data.images and data.labels.")
]
Workers = Annotated[
    int | None, typer.Option(min=1, max=1024, help="Worker processes; one a core by default.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="One setting, e.g. --set relax.stiffness=2 (again for more)."),
]


def read_config(path: Path | None, settings: list[str] | None = None) -> PipelineConfig:
    """Return the settings of a file with the ones of the command line laid over them."""
    from alignment.config import parse_config

    try:
        text = path.read_text() if path else ""
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}; make one: petalign init") from None
    return parse_config(with_settings(load_config(text).model_dump(mode="json"), settings))


def file_settings(path: Path | None) -> dict[str, Any]:
    """Return what a file of settings holds; nothing without one.

    Raises
    ------
    ConfigError
        If it cannot be read, or is no YAML.
    """
    import yaml

    try:
        return yaml.safe_load(path.read_text()) or {} if path else {}
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"--config {path} is not YAML: {error}") from None


def with_settings(values: dict[str, Any], settings: list[str] | None) -> dict[str, Any]:
    """Return nested values with the ones of the command line laid over them.

    Raises
    ------
    ConfigError
        If one is not written as STAGE.NAME=VALUE.
    """
    import yaml

    for setting in settings or []:
        name, sign, value = setting.partition("=")
        *stages, key = name.split(".")
        is_stage = not stages and isinstance(values.get(key, {}), dict)
        if not sign or is_stage:
            raise ConfigError(f"--set {setting!r}: expected STAGE.NAME=VALUE")
        place: Any = values
        for stage in stages:
            place = place.setdefault(stage, {})
        place[key] = yaml.safe_load(value)
    return values


def numbers[N: (int, float)](
    option: str, text: str | None, count: int, kind: type[N]
) -> tuple[N, ...] | None:
    """Return the numbers of an option such as ``24,1024,1024``; None if it is not given.

    Raises
    ------
    ConfigError
        If there are not `count` of them, or one is no number above 0.
    """
    if text is None:
        return None
    try:
        found = tuple(kind(part) for part in text.split(","))
    except ValueError:
        found = ()
    if len(found) != count or not all(n > 0 for n in found):
        raise ConfigError(
            f"{option} {text!r}: expected {count} numbers above 0, separated by commas"
        )
    return found
