"""Where voxels come from, and where sections go."""

from __future__ import annotations

from typing import Annotated

import typer

from alignment.commands.console import exit_codes
from alignment.errors import ConfigError
from alignment.verbs.options import Json


def lineage(
    uri: str,
    point: Annotated[
        str | None, typer.Option(metavar="Z,Y,X", help="Of the aligned volume, px at mip 0.")
    ] = None,
    section: Annotated[
        int | None, typer.Option(help="Instead: all that section Z of the source has a part in.")
    ] = None,
    at: Annotated[
        str | None, typer.Option(help="An epoch or a run instead of what is published.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Print from which sections, settings, code and models a shard was made, or the reverse."""
    from alignment.commands.lineage import lineage_of, print_lineage, print_touched, touched_by
    from alignment.commands.query import find_run, parse_point
    from storage.publish import find_version
    from storage.store import join, normalise_uri

    with exit_codes():
        if (point is None) == (section is None):
            raise ConfigError("give either --point Z,Y,X or --section Z")
        if at is None:
            run_uri = find_run(uri)
        else:
            wanted = int(at) if at.isdecimal() and len(at) < 10 else at
            volume = normalise_uri(uri)
            run_uri = join(volume, "runs", find_version(volume, wanted).run)
        if point is not None:
            print_lineage(lineage_of(run_uri, parse_point(point)), as_json=as_json)
        elif section is not None:
            found = touched_by(run_uri, section)
            print_touched(run_uri, section, found, as_json=as_json)
