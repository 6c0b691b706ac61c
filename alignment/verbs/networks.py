"""What the fused engine makes of networks."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from alignment.commands.console import exit_codes
from alignment.errors import ConfigError
from alignment.verbs.options import Json, numbers


class Isa(StrEnum):
    """Vectors that there may be kernels for."""

    AUTO = "auto"
    AVX512 = "avx512"
    AVX2 = "avx2"
    PORTABLE = "portable"


class Tile(StrEnum):
    """Sides of Winograd's output tiles, px."""

    ONE = "1"
    TWO = "2"
    FOUR = "4"
    SIX = "6"


def compile(
    model: Annotated[str, typer.Argument(help="A network: name.keras of Keras 3, or name.onnx.")],
    shape: Annotated[
        str, typer.Option(metavar="Z,Y,X,C", help="Of one input; Y,X,C for a network of images.")
    ],
    plan: Annotated[
        bool, typer.Option("--plan", help="Print what passes did, every step, and the memory.")
    ] = False,
    tune: Annotated[
        bool,
        typer.Option(
            "--tune", help="Choose kernels by measuring them, and keep that; else by a formula."
        ),
    ] = False,
    isa: Annotated[Isa, typer.Option(help="Vectors.")] = Isa.AUTO,
    tile: Annotated[
        Tile, typer.Option(help="Side of Winograd's output tiles, at most; 1: only direct sums.")
    ] = Tile.FOUR,
    threads: Annotated[int, typer.Option(min=1, max=256)] = 1,
    as_json: Json = False,
) -> None:
    """Compile MODEL for the fused engine, or say which layer it does not know."""
    from alignment.commands import compile as command

    with exit_codes():
        engine = command.compile_model(
            model,
            shape_of(shape),
            isa=isa.value,
            tile_px=int(tile.value),
            threads=threads,
            is_tuned=tune,
        )
        command.print_compiled(engine, is_whole=plan, as_json=as_json)


def shape_of(text: str) -> tuple[int, ...]:
    """Return the shape of one input.

    >>> shape_of("18,192,192,1")
    (18, 192, 192, 1)
    """
    count = text.count(",") + 1
    if count not in (3, 4):
        raise ConfigError(f"--shape {text!r}: expected Z,Y,X,C, or Y,X,C for a network of images")
    return numbers("--shape", text, count, int) or ()
