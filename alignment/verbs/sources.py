"""Sections on their way in: copy, stitch, make, compare."""

from __future__ import annotations

from typing import Annotated

import typer

from alignment.commands.console import counter, exit_codes, out, print_json
from alignment.verbs.options import Json


def ingest(
    source: str, target: str, resolution_nm: tuple[float, float, float] | None = None
) -> None:
    """Copy a stack (TIFF, folder of TIFF/PNG, zarr) into a sharded OME-Zarr 0.5 volume."""
    from alignment.commands.convert import convert

    with exit_codes(), counter("ingest") as tick:
        convert(source, target, resolution_nm=resolution_nm, tell=tick)
    out.print(f"wrote {target}")


def stitch(
    source: str,
    target: str,
    resolution_nm: tuple[float, float, float] | None = None,
    search_fraction: Annotated[
        float, typer.Option(min=0.01, max=1, help="Reach of the search, of a tile's side.")
    ] = 0.25,
    workers: Annotated[int | None, typer.Option(min=1, max=256, help="Threads.")] = None,
    as_json: Json = False,
) -> None:
    """Stitch camera tiles (a folder with positions.csv or tilespecs.json) into sections."""
    from dataclasses import asdict

    from alignment.commands.console import steps
    from alignment.commands.stitch import stitch as stitch_tiles
    from alignment.montage import MontageConfig

    with exit_codes(), steps(quiet=as_json) as tell:
        config = MontageConfig(search_fraction=search_fraction)
        done = stitch_tiles(
            source, target, config=config, resolution_nm=resolution_nm, workers=workers, tell=tell
        )
    if as_json:
        print_json(asdict(done))
        return
    nz, ny, nx = done.shape
    off = "" if done.residual_px is None else f", overlaps {done.residual_px:.2f} px off (median)"
    out.print(f"wrote {target}: {nz} sections of {ny} x {nx} px from {done.tiles} tiles{off}")
    if done.loose or done.unreadable or done.rejected:
        out.print(
            f"{done.loose} tiles without an overlap lie at their nominal place, {done.unreadable} "
            f"could not be read, {done.rejected} overlaps contradict the others: see "
            f"{target}/positions.json"
        )
    out.print(f"go on with: petalign align {target} VOLUME")


def sample(
    target: str,
    sections: Annotated[int, typer.Option(min=2, max=10_000)] = 24,
    side: Annotated[int, typer.Option(min=128, max=16_384, help="Height and width, px.")] = 1024,
    seed: int = 7,
) -> None:
    """Make a phantom of neuropil with a known misalignment."""
    from alignment.commands.sample import write_phantom
    from alignment.phantom import PhantomConfig

    config = PhantomConfig(sections=sections, height=side, width=side, seed=seed)
    with exit_codes(), counter("sample") as tick:
        write_phantom(target, config, tell=tick)
    out.print(f"wrote {target}: {sections} sections of {side} x {side} px, truth in {target}/truth")


def score(
    stack: str,
    chunk_px: Annotated[int, typer.Option(min=8, max=4096)] = 64,
    smoothing_px: Annotated[
        float, typer.Option(min=0, max=16, help="Sigma of the Gaussian before it; 0 for none.")
    ] = 1.5,
    as_json: Json = False,
) -> None:
    """Print the chunked correlation of neighbouring sections of any stack, ours or a peer's."""
    from alignment.commands.score import score_source

    with exit_codes():
        figures = score_source(stack, chunk_px, smoothing_px)
    if as_json:
        print_json(figures)
    else:
        out.print("  ".join(f"{name} {figures[name]:.4f}" for name in ("mean", "p1", "p5", "p50")))
