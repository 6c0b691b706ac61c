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
Workers = Annotated[
    int | None, typer.Option(min=1, max=1024, help="Worker processes; one a core by default.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="One setting, e.g. --set relax.stiffness=2 (again for more)."),
]


def read_config(path: Path | None, settings: list[str] | None = None) -> PipelineConfig:
    """Return the settings of a file with the ones of the command line laid over them."""
    import yaml

    from alignment.config import parse_config

    try:
        text = path.read_text() if path else ""
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}; make one: petalign init") from None
    values = load_config(text).model_dump(mode="json")
    for setting in settings or []:
        name, sign, value = setting.partition("=")
        *stages, key = name.split(".")
        if not sign or not stages:
            raise ConfigError(f"--set {setting!r}: expected STAGE.NAME=VALUE")
        place: Any = values
        for stage in stages:
            place = place.setdefault(stage, {})
        place[key] = yaml.safe_load(value)
    return parse_config(values)
