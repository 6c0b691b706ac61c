"""Studies: many trainings, and what they say together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alignment.commands.console import exit_codes
from alignment.verbs.options import Json, Labelled, Settings, TrainingFile

app = typer.Typer(no_args_is_help=True, help="Compare ways of training.")


@app.callback()
def study() -> None:
    """Compare ways of training."""


@app.command()
def modes(
    data: Labelled,
    folder: Annotated[
        Path, typer.Argument(help="Gets all trainings, one table, pictures and a page.")
    ],
    modes: Annotated[
        str, typer.Option(help="Some of local, mirrored, sync, async.")
    ] = "local,sync,async",
    workers: Annotated[str, typer.Option(help="Of each mode but local.")] = "1,2,3",
    seeds: Annotated[str, typer.Option(help="Each of all modes.")] = "1,2,3",
    plot_only: Annotated[
        bool, typer.Option("--plot-only", help="Train nothing; draw what is finished.")
    ] = False,
    config: TrainingFile = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Train by every mode, number of workers and seed, and compare; goes on with what was begun."""
    from alignment.commands.study import print_study, study, whole_numbers
    from alignment.commands.train_unet import read_segment_config
    from alignment.learning.study.grid import combinations
    from alignment.learning.study.report import report_study

    with exit_codes(hint=f"go on with the same command; what is finished is in {folder}"):
        grid = combinations(
            modes.split(","),
            whole_numbers("--workers", workers, least=1),
            whole_numbers("--seeds", seeds, least=0),
        )
        if not plot_only:
            study(data, folder, read_segment_config(config, settings), grid, quiet=as_json)
        print_study(report_study(folder, grid), as_json=as_json)
