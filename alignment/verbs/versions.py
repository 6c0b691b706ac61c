"""Stored volumes: check, mend, choose a version, clean up."""

from __future__ import annotations

from typing import Annotated

import typer

from alignment.commands.console import DAMAGED, OK, counter, err, exit_codes
from alignment.verbs.options import Json, Workers


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


def versions(uri: str, as_json: Json = False) -> None:
    """List what was published of a volume; each version stays readable until `gc` takes it."""
    from alignment.commands.versions import print_versions
    from storage.store import normalise_uri

    with exit_codes():
        print_versions(normalise_uri(uri), as_json=as_json)


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
