"""The command line: the same verbs as the pipeline, thin over functions that scripts can call."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from alignment.commands import fs
from alignment.commands.console import (
    DAMAGED,
    OK,
    PARTIAL,
    StageDisplay,
    counter,
    err,
    exit_codes,
    out,
    print_json,
)
from alignment.config import PipelineConfig, commented_yaml, load_config
from alignment.errors import ConfigError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Align serial-section electron-microscopy volumes.",
    epilog="Exit codes: 0 done, 2 a setting is wrong, 3 the input is wrong, 4 stopped with the "
    "finished part kept (go on with `petalign resume`), 5 stored objects are damaged, 1 anything "
    "else.",
)

app.add_typer(fs.app, name="fs")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="YAML made by `petalign init`; defaults without it."),
]
Workers = Annotated[
    int | None, typer.Option(min=1, max=1024, help="Worker processes; one a core by default.")
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="One setting, e.g. --set relax.stiffness=2 (again for more)."),
]


def _config(path: Path | None, settings: list[str] | None = None) -> PipelineConfig:
    """Return the settings of a file with the ones of the command line laid over them."""
    import yaml

    from alignment.config import parse_config

    try:
        text = path.read_text() if path else ""
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}; make one: petalign init") from None
    values = load_config(text).model_dump(mode="json")
    for setting in settings or []:
        name, sign, value = setting.partition("=")
        *stages, key = name.split(".")
        if not sign or not stages:
            raise ConfigError(f"--set {setting!r}: expected STAGE.NAME=VALUE")
        place: Any = values
        for stage in stages:
            place = place.setdefault(stage, {})
        place[key] = yaml.safe_load(value)
    return parse_config(values)


@app.command()
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


@app.command()
def ingest(
    source: str, target: str, resolution_nm: tuple[float, float, float] | None = None
) -> None:
    """Copy a stack (TIFF, folder of TIFF/PNG, zarr) into a sharded OME-Zarr 0.5 volume."""
    from alignment.commands.convert import convert

    with exit_codes(), counter("ingest") as tick:
        convert(source, target, resolution_nm=resolution_nm, tell=tick)
    out.print(f"wrote {target}")


@app.command()
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


@app.command()
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


@app.command()
def plan(source: str, config: ConfigFile = None, as_json: Json = False) -> None:
    """Print what aligning SOURCE would read, write and need, and run nothing."""
    from alignment.commands.plan import plan as make_plan
    from alignment.commands.summary import print_plan

    with exit_codes():
        print_plan(make_plan(source, _config(config)), as_json=as_json)


@app.command()
def align(
    source: str,
    volume: str,
    config: ConfigFile = None,
    settings: Settings = None,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Align SOURCE into VOLUME on this machine, without Airflow; resumes what was begun."""
    from alignment.commands.console import steps
    from alignment.commands.stitch import sections_of
    from alignment.runs import prepare

    with exit_codes():
        values = _config(config, settings).model_dump(mode="json")
        with steps(quiet=as_json) as tell:
            source = sections_of(source, volume, tell=tell)
        run_uri = prepare(source, volume, values)
    _drive(run_uri, workers=workers, as_json=as_json)


@app.command()
def resume(uri: str, workers: Workers = None, as_json: Json = False) -> None:
    """Go on with a run on this machine: what has a record is not done again."""
    from alignment.commands.query import find_run

    with exit_codes():
        run_uri = find_run(uri)
    _drive(run_uri, workers=workers, as_json=as_json)


def _drive(run_uri: str, *, workers: int | None, as_json: bool) -> None:
    from alignment.commands.local import align as align_here
    from alignment.commands.summary import print_result

    hint = f"go on with: petalign resume {run_uri}"
    with exit_codes(hint=hint), StageDisplay(quiet=as_json) as display:
        align_here(run_uri, workers=workers, tell=display.tell)
    print_result(run_uri, as_json=as_json)


@app.command()
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
        started = trigger(source, volume, _config(config, settings))
    err.print(f"DAG run {started.run_id}: {started.url}")
    if follow:
        hint = f"the DAG run goes on without this command; see it at {started.url}"
        with exit_codes(hint=hint), StageDisplay(quiet=as_json) as display:
            run_uri = follow_dag_run(started, tell=display.tell)
        print_result(run_uri, as_json=as_json)
    elif as_json:
        print_json({"dag_run": started.run_id, "url": started.url})


@app.command()
def status(uri: str, as_json: Json = False) -> None:
    """Print how far each stage of a run is; exit 4 if it is not complete."""
    from alignment.commands.local import stage_states
    from alignment.commands.query import find_run
    from alignment.commands.summary import print_status

    with exit_codes():
        run_uri = find_run(uri)
        states = stage_states(run_uri)
    print_status(run_uri, states, as_json=as_json)
    raise typer.Exit(OK if all(state.status == "done" for state in states) else PARTIAL)


@app.command()
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


@app.command()
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


@app.command()
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


@app.command()
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


@app.command()
def view(
    uri: str, port: Annotated[int, typer.Option(min=0, max=65_535, help="0: a free one.")] = 0
) -> None:
    """Show a volume in Neuroglancer, served from this machine."""
    from alignment.commands.platform import view as show

    with exit_codes():
        show(uri, port=port)


@app.command()
def verify(
    uri: str,
    full: Annotated[bool, typer.Option(help="Read and hash every byte; sizes only else.")] = False,
    every_run: Annotated[
        bool, typer.Option("--all", help="Also the runs that were not published.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Check that a volume or a run is what its records say; exit 5 if it is not."""
    from alignment.commands.verify import check, print_check

    with exit_codes(), counter("verify", of="objects") as tick:
        report = check(uri, full=full, every_run=every_run, tell=tick)
    print_check(report, as_json=as_json)
    raise typer.Exit(OK if report.is_clean else DAMAGED)


@app.command()
def repair(
    uri: str,
    full: Annotated[bool, typer.Option(help="Look at every byte first; sizes only else.")] = True,
    every_run: Annotated[
        bool, typer.Option("--all", help="Also the runs that were not published.")
    ] = False,
    workers: Workers = None,
    as_json: Json = False,
) -> None:
    """Compute exactly what is damaged again; only the recorded content is let in."""
    from alignment.commands.verify import check, mend, print_repairs

    with exit_codes():
        with counter("verify", of="objects") as tick:
            before = check(uri, full=full, every_run=every_run, tell=tick)
        repairs = mend(before, workers=workers, tell=lambda what: err.print(what, markup=False))
        after = check(uri, full=full, every_run=every_run) if before.problems else before
    print_repairs(repairs, after, as_json=as_json)
    raise typer.Exit(OK if after.is_clean else DAMAGED)


@app.command()
def versions(uri: str, as_json: Json = False) -> None:
    """List what was published of a volume; each version stays readable until `gc` takes it."""
    from alignment.commands.versions import print_versions
    from storage.store import normalise_uri

    with exit_codes():
        print_versions(normalise_uri(uri), as_json=as_json)


@app.command()
def rollback(
    uri: str,
    to: Annotated[
        str | None, typer.Option(help="Epoch or run key; the version before this one without it.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Bring back an earlier version of a volume, as a new epoch."""
    from alignment.commands.versions import print_pointer
    from storage.publish import rollback as roll_back
    from storage.store import normalise_uri

    with exit_codes():
        wanted = int(to) if to is not None and to.isdecimal() and len(to) < 10 else to
        pointer = roll_back(normalise_uri(uri), wanted)
    print_pointer(pointer, as_json=as_json)


@app.command()
def gc(
    uri: str,
    keep: Annotated[int, typer.Option(min=1, help="Published runs that stay.")] = 3,
    grace_days: Annotated[
        float, typer.Option(min=0, help="Runs stay for so long after the last work on them.")
    ] = 7.0,
    dry_run: Annotated[bool, typer.Option(help="Only say what would be deleted.")] = False,
    as_json: Json = False,
) -> None:
    """Delete the runs of a volume that no reader can reach any more."""
    from alignment.commands.versions import print_collection
    from storage.gc import collect
    from storage.store import normalise_uri

    with exit_codes():
        found = collect(normalise_uri(uri), keep=keep, grace_s=grace_days * 86_400, dry_run=dry_run)
    print_collection(found, dry_run=dry_run, as_json=as_json)


@app.command()
def up(as_json: Json = False) -> None:
    """Start the embedded platform: S3 server, Dask, Airflow; does nothing if it is up."""
    from alignment.commands.platform import start

    with exit_codes():
        start(as_json=as_json)


@app.command()
def down() -> None:
    """Stop the embedded platform; its data and logs stay."""
    from alignment.commands.platform import stop

    with exit_codes():
        stop()


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check every part of the platform and say what to do; exit 1 if a part fails."""
    from alignment.commands.platform import examine

    with exit_codes():
        healthy = examine(as_json=as_json)
    raise typer.Exit(0 if healthy else 1)


@app.command()
def demo(
    data: Annotated[str | None, typer.Option(help="Your own stack instead of the phantom.")] = None,
    settings: Settings = None,
) -> None:
    """Bring the platform up, align a sample through Airflow and S3, and show the result."""
    from alignment.commands.demo import demo as show

    with exit_codes():
        show(data, _config(None, settings))


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
