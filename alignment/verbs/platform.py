"""The embedded platform and the demonstration."""

from __future__ import annotations

from typing import Annotated

import typer

from alignment.commands.console import exit_codes
from alignment.verbs.options import Json, Settings, read_config


def up(as_json: Json = False) -> None:
    """Start the embedded platform: S3 server, Dask, Airflow; does nothing if it is up."""
    from alignment.commands.platform import start

    with exit_codes():
        start(as_json=as_json)


def down() -> None:
    """Stop the embedded platform; its data and logs stay."""
    from alignment.commands.platform import stop

    with exit_codes():
        stop()


def doctor(as_json: Json = False) -> None:
    """Check every part of the platform and say what to do; exit 1 if a part fails."""
    from alignment.commands.platform import examine

    with exit_codes():
        healthy = examine(as_json=as_json)
    raise typer.Exit(0 if healthy else 1)


def demo(
    data: Annotated[str | None, typer.Option(help="Your own stack instead of the phantom.")] = None,
    settings: Settings = None,
) -> None:
    """Bring the platform up, align a sample through Airflow and S3, and show the result."""
    from alignment.commands.demo import demo as show

    with exit_codes():
        show(data, read_config(None, settings))
