"""Networks that learn from volumes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from alignment.commands.console import exit_codes
from alignment.verbs.options import Json, Labelled, Settings, TrainingFile, numbers

app = typer.Typer(no_args_is_help=True, help="Train a network on a volume.")


@app.callback()
def train() -> None:
    """Train a network on a volume."""


@app.command()
def nccnet(
    stacks: Annotated[
        list[str],
        typer.Argument(
            metavar="STACK...",
            help="Aligned volumes, or sections that lie on each other already.",
        ),
    ],
    folder: Annotated[
        str, typer.Argument(help="Gets the network, checkpoints and logs; a path or a URI.")
    ],
    config: TrainingFile = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Train NCCNet, which makes sections easier to match; goes on with what was begun."""
    from alignment.commands.train import print_trained, train_at

    hint = f"go on with the same command; checkpoints are in {folder}"
    with exit_codes(hint=hint):
        trained = train_at(stacks, folder, config, settings, quiet=as_json)
        print_trained(folder, trained, as_json=as_json)


@app.command()
def unet(
    data: Labelled,
    folder: Annotated[
        str, typer.Argument(help="Gets the network, checkpoints and logs; a path or a URI.")
    ],
    mode: Annotated[
        str, typer.Option(help="local, mirrored (devices of one process), sync or async.")
    ] = "local",
    workers: Annotated[int, typer.Option(min=1, max=256, help="That learn at once.")] = 1,
    epochs: Annotated[int | None, typer.Option(min=1, help="training.epochs.")] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, help="An epoch: training.steps_per_epoch.")
    ] = None,
    restarts: Annotated[
        int, typer.Option(min=0, help="From the last checkpoint, if a worker is lost.")
    ] = 0,
    join: Annotated[
        bool,
        typer.Option("--join", help="Be one process of a group, as TF_CONFIG says: in recipes."),
    ] = False,
    cache: Annotated[
        Path | None, typer.Option(envvar="PETALIGN_CACHE", help="Folder to read a zarr through.")
    ] = None,
    cache_bytes: Annotated[
        str, typer.Option(envvar="PETALIGN_CACHE_BYTES", help="How large it may grow.")
    ] = "20GB",
    config: TrainingFile = None,
    settings: Settings = None,
    as_json: Json = False,
) -> None:
    """Train a U-Net to segment, by one or many processes; goes on with what was begun."""
    from alignment.commands.train_unet import print_trained_unet, read_segment_config, train_unet
    from alignment.errors import ConfigError
    from inference.training.config import MODES

    named = [f"training.epochs={epochs}"] if epochs else []
    named += [f"training.steps_per_epoch={steps}"] if steps else []
    with exit_codes(hint=f"go on with the same command; checkpoints are in {folder}"):
        chosen = next((each for each in MODES if each == mode), None)
        if chosen is None:
            raise ConfigError(f"--mode {mode}: expected one of {', '.join(MODES)}")
        read = read_segment_config(config, [*(settings or []), *named])
        row = train_unet(
            data, folder, read, mode=chosen, workers=workers, restarts=restarts, cache=cache,
            cache_bytes=cache_bytes, quiet=as_json,
            joined=os.environ.get("TF_CONFIG", "") if join else None,
        )  # fmt: skip
        if row:
            print_trained_unet(folder, row, as_json=as_json)


@app.command()
def pictures(
    images: Annotated[Path, typer.Argument(help="Folder of pictures of any size and colour.")],
    labels: Annotated[Path, typer.Argument(help="Folder of their masks, of the same names.")],
    data: Annotated[str, typer.Argument(help="Gets both as zarr, for `petalign train unet`.")],
    size: Annotated[str, typer.Option(help="To which all are brought: y,x in px.")] = "512,512",
) -> None:
    """Bring folders of pictures and masks into the form that `train unet` reads."""
    from alignment.commands.console import counter, out
    from alignment.learning.segmentation.pictures import import_pictures

    with exit_codes(), counter("pictures", of="pictures") as tell:
        size_px = numbers("--size", size, 2, int) or (512, 512)
        n = import_pictures(images, labels, data, (size_px[0], size_px[1]), tell=tell)
        out.print(f"{n} pictures of {size_px[0]} x {size_px[1]} px in {data}", highlight=False)


@app.command("log")
def table_of_log(
    log: Annotated[Path, typer.Argument(help="A train.log, or one in the published grammar.")],
) -> None:
    """Print a training's log as CSV."""
    import sys

    from alignment.errors import DataError
    from inference.training.journal import parse, to_csv

    with exit_codes():
        try:
            entries = list(parse(log.read_text(errors="replace").splitlines()))
        except OSError as error:
            raise DataError(f"{log}: {error.strerror}") from None
        if not entries:
            raise DataError(f"{log} has no line such as 'Iter 0, Minibatch Loss= ...'")
        sys.stdout.write(to_csv(entries))


judge = typer.Typer(no_args_is_help=True, help="Judge what matches sections.")


@judge.callback()
def evaluate() -> None:
    """Judge what matches sections."""


@judge.command()
def matcher(
    stack: Annotated[
        str, typer.Argument(help="An aligned volume, or sections that lie on each other already.")
    ],
    model: Annotated[
        list[Path] | None, typer.Option(help="A network of `petalign train nccnet` (repeatable).")
    ] = None,
    tune: Annotated[
        str | None,
        typer.Option(help="Another stack, on which the band-pass is tuned; else its default."),
    ] = None,
    mip: Annotated[int, typer.Option(min=0, max=12, help="Level that is matched.")] = 1,
    template: Annotated[
        list[int] | None, typer.Option(min=8, max=512, help="Side of templates, px (repeatable).")
    ] = None,
    distance: Annotated[
        list[int] | None, typer.Option(min=1, max=16, help="Of the two sections (repeatable).")
    ] = None,
    radius: Annotated[int, typer.Option(min=4, max=256, help="Search radius, px.")] = 64,
    matches: Annotated[int, typer.Option(min=1, help="In each cell of the table.")] = 10_000,
    tolerance: Annotated[float, typer.Option(min=0.1, help="Farther off is false, px.")] = 20.0,
    warp: Annotated[float, typer.Option(min=0, help="Largest displacement of the warp, px.")] = 8.0,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    as_json: Json = False,
) -> None:
    """Count false matches by a known warp: raw, band-passed, by networks."""
    from alignment.commands.evaluate import compare_ways, print_rows
    from alignment.learning.evaluation import EvaluationConfig

    with exit_codes():
        config = EvaluationConfig(
            search_radius_px=radius, matches=matches, tolerance_px=tolerance, warp_px=warp,
            seed=seed,
        )  # fmt: skip
        rows, about = compare_ways(
            stack, model or [], config, mip=mip, templates_px=template or [160],
            distances=distance or [1, 2], tune_on=tune,
        )  # fmt: skip
        print_rows(rows, about, as_json=as_json)
