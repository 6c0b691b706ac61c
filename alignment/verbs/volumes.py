"""Aligned volumes: look at them, ask them, hand them on."""

from __future__ import annotations

from typing import Annotated

import typer

from alignment.commands.console import exit_codes, out, print_json
from alignment.errors import ConfigError
from alignment.verbs.options import Json


def query(
    uri: str,
    place: Annotated[list[str] | None, typer.Argument(metavar="Z Y X")] = None,
    point: Annotated[
        list[str] | None,
        typer.Option("--point", metavar="Z,Y,X", help="Section, and px at mip 0 (again for more)."),
    ] = None,
    inverse: Annotated[
        bool, typer.Option("--to-aligned", help="The points are in the source sections.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Map points of the aligned volume to the source, or back: Z Y X, or any number of --point."""
    from alignment.commands.query import ask, parse_point

    point = [*([",".join(place)] if place else []), *(point or [])]
    with exit_codes():
        if not point:
            raise ConfigError("which point? Give --point Z,Y,X, px at mip 0; again for more")
        answers = ask(uri, [parse_point(text) for text in point], inverse=inverse)
    if as_json:
        print_json({"points": [answer.as_dict() for answer in answers]})
        return
    for answer in answers:
        out.print(answer.line, markup=False)


def view(
    uri: str, port: Annotated[int, typer.Option(min=0, max=65_535, help="0: a free one.")] = 0
) -> None:
    """Show a volume in Neuroglancer, served from this machine."""
    from alignment.commands.platform import view as show

    with exit_codes():
        show(uri, port=port)


def export(
    volume: str,
    dest: Annotated[str | None, typer.Argument(help="Where to write; not for a link.")] = None,
    to: Annotated[str, typer.Option(help="precomputed, tiff, field or link.")] = "precomputed",
    at: Annotated[
        str | None, typer.Option(help="An epoch or a run instead of what is published.")
    ] = None,
    mip: Annotated[
        list[int] | None, typer.Option(min=0, max=20, help="Level (again for more).")
    ] = None,
    z: Annotated[str | None, typer.Option(help="Sections of a TIFF export, e.g. 10:20.")] = None,
    box: Annotated[
        str | None, typer.Option(help="Part of a TIFF export, Y0:Y1,X0:X1, px of the mip.")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(help="Of a link: where others find the volume.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, max=256, help="Threads.")] = None,
) -> None:
    """Give a version of VOLUME away: precomputed, TIFF files, its field, or a link."""
    from alignment.commands.console import steps
    from alignment.commands.export import export as export_volume

    with exit_codes(), steps() as tell:
        said = export_volume(
            volume,
            to,
            dest,
            at=int(at) if at and at.isdecimal() and len(at) < 10 else at,
            mips=tuple(mip) if mip else None,
            z=z,
            box=box,
            base_url=base_url,
            workers=workers,
            tell=tell,
        )
    out.print(said, markup=False)
