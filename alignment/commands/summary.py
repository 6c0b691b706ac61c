"""What the commands print when they are done: a run's figures, its stages, a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from alignment.commands.console import out, print_json
from alignment.runs import load
from storage.ledger import StageState
from storage.store import join, read_bytes, read_json
from storage.uri import local_path


def shown(uri: str) -> str:
    """Return how a person would name `uri`: a path if it is one."""
    path = local_path(uri)
    return str(path) if path else uri


def print_result(run_uri: str, *, as_json: bool) -> None:
    """Print where a finished run's volume and report are, and its figures."""
    volume, figures = load(run_uri).volume_uri, read_json(join(run_uri, "qc.json"))
    if as_json:
        print_json(
            {
                "volume": volume,
                "run": run_uri,
                "report": join(run_uri, "report.html"),
                **{
                    key: figures[key]
                    for key in ("verdict", "findings", "correlation", "residual", "truth")
                },
            }
        )
        return
    _print_figures(figures)
    out.print(f"aligned volume  {shown(volume)}")
    out.print(f"report          {shown(join(run_uri, 'report.html'))}")


def print_report(run_uri: str, *, to: Path | None, as_json: bool) -> None:
    """Print a finished run's figures; copy its page to `to`."""
    figures = read_json(join(run_uri, "qc.json"))
    if to is not None:
        to.write_bytes(read_bytes(join(run_uri, "report.html")))
    if as_json:
        print_json(figures)
        return
    _print_figures(figures)
    out.print(f"report          {to or shown(join(run_uri, 'report.html'))}")


def _print_figures(figures: dict[str, Any]) -> None:
    verdict = figures["verdict"]
    out.print(f"[bold]{verdict['sentence']}[/]")
    for reason in verdict["reasons"]:
        out.print(f"  look at: {reason}", markup=False)
    before, after = (figures["correlation"][when] for when in ("before", "after"))
    out.print(
        f"correlation     p50 {_r(before['p50'])} -> {_r(after['p50'])}, "
        f"p5 {_r(before['p5'])} -> {_r(after['p5'])} (chunks of {figures['chunk_px']} px)"
    )
    residual = figures["residual"]
    out.print(f"residual        p50 {_px(residual['p50'])}, p99 {_px(residual['p99'])}")
    if figures["truth"]:
        error = figures["truth"]["error"]
        out.print(
            f"known truth     p50 {_px(error['p50'])}, p95 {_px(error['p95'])}, "
            f"p99 {_px(error['p99'])} (displacement of neighbouring sections)"
        )


def _r(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _px(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} px"


def print_status(run_uri: str, states: list[StageState], *, as_json: bool) -> None:
    """Print a line a stage."""
    if as_json:
        print_json({"run": run_uri, "stages": [vars(state) for state in states]})
        return
    table = Table(box=None, pad_edge=False)
    for heading in ("stage", "status", "units", "seconds", ""):
        table.add_column(heading, justify="right" if heading in ("units", "seconds") else "left")
    for state in states:
        units = f"{state.blocks_done}/{state.blocks_total}" if state.blocks_total else ""
        seconds = f"{state.seconds:.1f}" if state.seconds else ""
        table.add_row(state.stage, state.status, units, seconds, state.error or "")
    out.print(f"run {shown(run_uri)}")
    out.print(table)
