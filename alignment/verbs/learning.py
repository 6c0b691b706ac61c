"""Networks that learn from volumes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alignment.commands.console import exit_codes
from alignment.verbs.options import Json, Settings

app = typer.Typer(no_args_is_help=True, help="Train a network on a volume.")


@app.callback()
def train() -> None:
    """Train a network on a volume."""


@app.command()
def nccnet(
    stack: Annotated[
        str, typer.Argument(help="An aligned volume, or sections that lie on each other already.")
    ],
    folder: Annotated[Path, typer.Argument(help="Gets the network, checkpoints and logs.")],
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="YAML; defaults without it.")
    ] = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Train NCCNet, which makes sections easier to match; goes on with what was begun."""
    from alignment.commands.train import print_trained, train_nccnet

    hint = f"go on with the same command; checkpoints are in {folder}"
    with exit_codes(hint=hint):
        trained = train_nccnet(stack, folder, config, settings, quiet=as_json)
        print_trained(folder, trained, as_json=as_json)
