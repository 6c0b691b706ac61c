"""The versions of a volume: list them, bring one back, delete what nobody can reach."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime

from rich.table import Table

from alignment.commands.console import out, print_json
from alignment.commands.summary import shown
from alignment.driving.kinds import PREDICTION, kind_of
from storage.gc import Collection
from storage.publish import Pointer, Version, read_pointer, versions
from storage.store import exists, join


def print_versions(uri: str, *, as_json: bool) -> None:
    """Print the publications of a volume, the one that readers see last."""
    known, pointer = versions(uri), read_pointer(uri)
    epoch = pointer.epoch if pointer else 0
    there = {v.run: exists(join(uri, "runs", v.run, "run.json")) for v in known}
    if as_json:
        print_json(
            [{**asdict(v), "current": v.epoch == epoch, "readable": there[v.run]} for v in known]
        )
        return
    if not known:
        out.print(f"{uri}: nothing was published yet")
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("epoch", "run", "published (UTC)", "root", ""):
        table.add_column(heading, no_wrap=True)
    for version in known:
        when = datetime.fromtimestamp(version.published_s, UTC).strftime("%Y-%m-%d %H:%M")
        note = "readers see this" if version.epoch == epoch else ""
        table.add_row(
            str(version.epoch),
            version.run,
            when,
            version.root[:16],
            note if there[version.run] else "deleted",
        )
    out.print(table)
    is_prediction = kind_of(join(uri, "runs", known[-1].run)) == PREDICTION
    opener = "open_prediction" if is_prediction else "open_aligned"
    out.print(f"read one: storage.{opener}({shown(uri)!r}, at=EPOCH)", markup=False)


def print_pointer(pointer: Pointer | Version, *, as_json: bool) -> None:
    """Print what readers see from now on."""
    if as_json:
        print_json(asdict(pointer))
    else:
        out.print(f"epoch {pointer.epoch}: readers see run {pointer.run}")


def print_collection(collection: Collection, *, dry_run: bool, as_json: bool) -> None:
    """Print what was deleted and why the rest was not."""
    if as_json:
        print_json({**asdict(collection), "dry_run": dry_run})
        return
    for key, reason in sorted(collection.kept.items()):
        out.print(f"kept     {key}  {reason}")
    for key in collection.deleted:
        out.print(f"{'would delete' if dry_run else 'deleted'}  {key}")
    verb = "would free" if dry_run else "freed"
    out.print(f"{verb} {collection.bytes / 1e9:.3f} GB in {collection.objects} objects")
