"""Networks over aligned volumes."""

from __future__ import annotations

from typing import Annotated

import typer

from alignment.commands.console import StageDisplay, exit_codes
from alignment.verbs.options import Json, Settings, Workers, with_settings


def predict(
    volume: str,
    model: Annotated[str, typer.Argument(help="A network: name.keras of Keras 3, or name.onnx.")],
    dest: Annotated[str, typer.Argument(metavar="OUT", help="Where the prediction shall be.")],
    settings: Settings = None,
    at: Annotated[
        str | None, typer.Option(help="An epoch or a run instead of what is published.")
    ] = None,
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what it takes; write and run nothing.")
    ] = False,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Run a network over the aligned VOLUME into OUT on this machine; resumes what was begun."""
    from alignment.commands import predict as command
    from alignment.predicting.config import parse_predict_config
    from alignment.predicting.driver import run_prediction
    from storage.store import normalise_uri

    with exit_codes():
        config = parse_predict_config(with_settings({}, settings)).model_dump(mode="json")
        version = int(at) if at and at.isdecimal() and len(at) < 10 else at
        source, file, target = map(normalise_uri, (volume, model, dest))
        order = command.Order(source, file, target, config, version, only_plan=plan)
        with command.workers_here(1 if plan else workers) as client:
            prepared = command.prepare_on(client, order)
            if plan or not as_json:
                command.print_figures(prepared, as_json=as_json)
            if plan:
                return
            hint = f"go on with: petalign resume {prepared.run_uri}"
            with exit_codes(hint=hint), StageDisplay(quiet=as_json) as display:
                run_prediction(prepared.run_uri, client, tell=display.tell)
        command.print_predicted(prepared.run_uri, as_json=as_json)


def drive(run_uri: str, *, workers: int | None, as_json: bool) -> None:
    """Go on with a prediction on this machine."""
    from alignment.commands import predict as command
    from alignment.predicting.driver import run_prediction

    hint = f"go on with: petalign resume {run_uri}"
    with (
        exit_codes(hint=hint),
        StageDisplay(quiet=as_json) as display,
        command.workers_here(workers) as client,
    ):
        run_prediction(run_uri, client, tell=display.tell)
    command.print_predicted(run_uri, as_json=as_json)
