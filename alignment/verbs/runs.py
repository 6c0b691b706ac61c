"""Align: configure, plan, run, watch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from alignment.commands.console import OK, PARTIAL, StageDisplay, err, exit_codes, out, print_json
from alignment.config import commented_yaml
from alignment.errors import ConfigError
from alignment.verbs.options import (
    ConfigFile,
    Json,
    Settings,
    Workers,
    numbers,
    read_config,
)


def init(
    path: Annotated[Path, typer.Argument()] = Path("petalign.yaml"),
    force: Annotated[bool, typer.Option(help="Overwrite an existing file.")] = False,
) -> None:
    """Write a complete, commented configuration file."""
    with exit_codes():
        if path.exists() and not force:
            raise ConfigError(f"{path} exists; give another name, or --force to overwrite it")
        path.write_text(commented_yaml())
    out.print(f"wrote {path}: every setting with its default; pass it with --config {path}")


def plan(
    source: Annotated[
        str | None, typer.Argument(help="The stack; or give --shape for one that is not there yet.")
    ] = None,
    shape: Annotated[str | None, typer.Option(help="Sections, height, width: Z,Y,X px.")] = None,
    resolution: Annotated[str | None, typer.Option(help="Voxel size Z,Y,X nm.")] = None,
    canvas: Annotated[
        str | None, typer.Option(help="Height, width of the aligned volume, Y,X px, if known.")
    ] = None,
    config: ConfigFile = None,
    settings: Settings = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Workers of one core; as many as here by default.")
    ] = None,
    prices: Annotated[
        Path | None, typer.Option(help="YAML of prices; without it, list prices as remembered.")
    ] = None,
    rates: Annotated[
        Path | None, typer.Option(help="JSON of rates, as --calibrate writes it.")
    ] = None,
    worker_memory_gib: Annotated[
        float | None, typer.Option(min=0, help="Refuse what needs more in a worker.")
    ] = None,
    max_price: Annotated[float | None, typer.Option(min=0, help="Refuse what costs more.")] = None,
    max_core_hours: Annotated[
        float | None, typer.Option(min=0, help="Refuse what takes more.")
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Take the rates from this run, and keep them."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(help="A finished run, or a volume: print what would be computed again."),
    ] = None,
    anew: Annotated[
        bool, typer.Option("--anew", help="With --against: not as an update; nothing is held.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print what aligning SOURCE would read, write, hold and cost, and run nothing."""
    from alignment.commands import plan as command
    from alignment.planning.refusals import Limits

    with exit_codes():
        values = read_config(config, settings)
        if against is not None:
            from alignment.commands.rerun import plan_against, print_rerun

            if source is None:
                raise ConfigError("--against compares a SOURCE; give it")
            plain = values.model_dump(mode="json")
            print_rerun(*plan_against(source, against, plain, update=not anew), as_json=as_json)
            return
        if calibrate is not None:
            out.print(f"rates of {calibrate} are in {command.calibrate(calibrate, rates)}")
            if source is None and shape is None:
                return
        limits = Limits(worker_memory_gib, max_price, max_core_hours)
        found, stack = command.make_plan(
            source,
            numbers("--shape", shape, 3, int),
            values,
            resolution_nm=numbers("--resolution", resolution, 3, float),
            canvas=numbers("--canvas", canvas, 2, int),
            prices=prices,
            rates=rates,
            workers=workers or os.cpu_count() or 1,
        )
        command.print_plan(
            found, stack, limits, workers=workers or os.cpu_count() or 1, as_json=as_json
        )


def align(
    source: str,
    volume: str,
    config: ConfigFile = None,
    settings: Settings = None,
    update: Annotated[
        bool,
        typer.Option(
            "--update",
            help="Keep what is published of sections far from any that is new or changed.",
        ),
    ] = False,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Align SOURCE into VOLUME on this machine, without Airflow; resumes what was begun."""
    from alignment.commands.console import steps
    from alignment.commands.stitch import sections_of
    from alignment.runs import prepare

    with exit_codes():
        values = read_config(config, settings).model_dump(mode="json")
        with steps(quiet=as_json) as tell:
            source = sections_of(source, volume, tell=tell)
        run_uri = prepare(source, volume, values, update=update)
    _drive(run_uri, workers=workers, as_json=as_json)


def resume(uri: str, workers: Workers = None, as_json: Json = False) -> None:
    """Go on with a run on this machine: what has a record is not done again."""
    from alignment.commands.query import find_run
    from alignment.driving.kinds import PREDICTION, kind_of

    with exit_codes():
        run_uri = find_run(uri, any_kind=True)
        is_prediction = kind_of(run_uri) == PREDICTION
    if is_prediction:
        from alignment.verbs.predictions import drive

        drive(run_uri, workers=workers, as_json=as_json)
    else:
        _drive(run_uri, workers=workers, as_json=as_json)


def _drive(run_uri: str, *, workers: int | None, as_json: bool) -> None:
    from alignment.commands.local import align as align_here
    from alignment.commands.summary import print_result

    hint = f"go on with: petalign resume {run_uri}"
    with exit_codes(hint=hint), StageDisplay(quiet=as_json) as display:
        align_here(run_uri, workers=workers, tell=display.tell)
    print_result(run_uri, as_json=as_json)


def run(
    source: str,
    volume: str,
    config: ConfigFile = None,
    settings: Settings = None,
    follow: Annotated[bool, typer.Option(help="Wait for the end and show progress.")] = True,
    as_json: Json = False,
) -> None:
    """Trigger the DAG `align_volume` on the platform that is up, and follow it."""
    from alignment.commands.follow import follow_dag_run, trigger
    from alignment.commands.summary import print_result

    with exit_codes():
        started = trigger(source, volume, read_config(config, settings))
    err.print(f"DAG run {started.run_id}: {started.url}")
    if follow:
        hint = f"the DAG run goes on without this command; see it at {started.url}"
        with exit_codes(hint=hint), StageDisplay(quiet=as_json) as display:
            run_uri = follow_dag_run(started, tell=display.tell)
        print_result(run_uri, as_json=as_json)
    elif as_json:
        print_json({"dag_run": started.run_id, "url": started.url})


def status(uri: str, as_json: Json = False) -> None:
    """Print how far each stage of a run is; exit 4 if it is not complete."""
    from alignment.commands.query import find_run
    from alignment.commands.summary import print_status
    from alignment.driving.states import stage_states

    with exit_codes():
        run_uri = find_run(uri, any_kind=True)
        states = stage_states(run_uri)
    print_status(run_uri, states, as_json=as_json)
    raise typer.Exit(OK if all(state.status == "done" for state in states) else PARTIAL)


def report(
    uri: str,
    to: Annotated[Path | None, typer.Option(help="Copy report.html to here.")] = None,
    as_json: Json = False,
) -> None:
    """Print the figures of a finished run and where its report is."""
    from alignment.commands.query import find_run
    from alignment.commands.summary import print_report

    with exit_codes():
        print_report(find_run(uri), to=to, as_json=as_json)
