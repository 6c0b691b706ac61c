"""The command line: the same verbs as the pipeline, thin over functions that scripts can call."""

from __future__ import annotations

import os
import sys

import typer

from alignment.commands import fs
from alignment.commands.console import exit_codes
from alignment.verbs import (
    learning,
    lineage,
    networks,
    platform,
    predictions,
    recipes,
    runs,
    sources,
    studies,
    versions,
    volumes,
)

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Align serial-section electron-microscopy volumes.",
    epilog="Exit codes: 0 done, 2 a setting is wrong, 3 the input is wrong, 4 stopped with the "
    "finished part kept (go on with `petalign resume`), 5 stored objects are damaged, 1 anything "
    "else.",
)

VERBS = {
    "Align": (
        runs.init, runs.plan, runs.align, runs.run, runs.resume, runs.status, runs.report,
    ),
    "Sections": (sources.ingest, sources.stitch, sources.sample, sources.score),
    "Volumes": (
        volumes.query, volumes.view, volumes.export, lineage.lineage, predictions.predict,
    ),
    "Versions": (
        versions.verify, versions.repair, versions.versions, versions.rollback, versions.gc,
    ),
    "Networks": (networks.compile,),
    "Platform": (platform.up, platform.down, platform.doctor, platform.demo),
}  # fmt: skip
"""What `petalign --help` lists, by theme."""

for _theme, _verbs in VERBS.items():
    for _verb in _verbs:
        app.command(rich_help_panel=_theme)(_verb)
app.add_typer(fs.app, name="fs", rich_help_panel="Volumes")
app.add_typer(recipes.app, name="recipe", rich_help_panel="Platform")
app.add_typer(learning.app, name="train", rich_help_panel="Networks")
app.add_typer(studies.app, name="study", rich_help_panel="Networks")
app.add_typer(learning.judge, name="evaluate", rich_help_panel="Networks")


def main() -> None:
    """Run the command line; the platform that is up lends its S3 connection."""
    from alignment.platform.config import platform_config
    from alignment.platform.environment import lend_connection

    try:
        with exit_codes():
            lend_connection(os.environ, platform_config(os.environ))
    except typer.Exit as stop:
        sys.exit(stop.exit_code)
    app(prog_name="petalign")


if __name__ == "__main__":
    main()
