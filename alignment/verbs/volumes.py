"""Aligned volumes: look at them, ask them, hand them on."""

from __future__ import annotations

from typing import Annotated

import typer

from alignment.commands.console import exit_codes, out, print_json
from alignment.verbs.options import Json


def query(
    uri: str,
    z: Annotated[int, typer.Argument(min=0)],
    y: float,
    x: float,
    inverse: Annotated[
        bool, typer.Option("--to-aligned", help="The point is in the source section.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Map a point (z y x, px at mip 0) of the aligned volume to the source, or back."""
    import numpy as np

    from alignment.commands.query import find_run, to_aligned, to_source

    with exit_codes():
        mapped = (to_aligned if inverse else to_source)(find_run(uri), z, np.array([[y, x]]))[0]
    found = {"z": z, "y": round(float(mapped[0]), 3), "x": round(float(mapped[1]), 3)}
    print_json(found) if as_json else out.print(f"{found['z']} {found['y']} {found['x']}")


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
