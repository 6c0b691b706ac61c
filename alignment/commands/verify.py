"""Look whether a volume is what its records say, and mend what is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict

from rich.table import Table

from alignment.blockwise import local_client
from alignment.commands.console import err, out, print_json
from alignment.commands.summary import shown
from alignment.stages.repair import Repairs, repair
from storage import store
from storage.commit.verify import Report, Runs, Tell, verify_run, verify_volume
from storage.publish import versions

SHOWN_PROBLEMS = 20


def check(uri: str, *, full: bool, every_run: bool, tell: Tell | None = None) -> Report:
    """Check a volume, or a single run given by its own URI.

    Raises
    ------
    MissingError
        If there is neither.
    """
    where = store.normalise_uri(uri)
    if not store.exists(store.join(where, "run.json")):
        runs: Runs = "all" if every_run else "published"
        return verify_volume(where, full=full, runs=runs, tell=tell)
    volume_uri, _, key = where.rpartition("/runs/")
    roots = {version.run: version.root for version in versions(volume_uri)}
    found = verify_run(where, full=full, root=roots.get(key), tell=tell)
    return Report(volume_uri, (key,), found.objects, found.bytes, full, found.problems)


def print_check(report: Report, *, as_json: bool) -> None:
    """Print what a check found, the gravest first."""
    if as_json:
        print_json({**asdict(report), "clean": report.is_clean})
        return
    how = "read and hashed" if report.full else "listed"
    out.print(
        f"{shown(report.volume_uri)}: {len(report.runs)} runs, {report.objects} objects, "
        f"{report.bytes / 1e9:.3f} GB {how}"
    )
    if report.is_clean:
        out.print("[bold]everything is as it was recorded[/]")
        if not report.full:
            out.print("sizes only; --full reads every byte")
        return
    n = len(report.problems)
    out.print(f"[bold red]{n} problem{'s' * (n > 1)}[/]; to mend: petalign repair")
    table = Table(box=None, padding=(0, 2, 0, 0))
    for heading in ("kind", "unit", "object", "expected", "found"):
        table.add_column(heading)
    for problem in report.problems[:SHOWN_PROBLEMS]:
        unit = "/".join(part for part in (problem.stage, problem.phase, problem.unit) if part)
        table.add_row(problem.kind, unit, problem.path, problem.expected, problem.found)
    out.print(table)
    if len(report.problems) > SHOWN_PROBLEMS:
        out.print(f"and {len(report.problems) - SHOWN_PROBLEMS} more; --json shows all")


def mend(report: Report, *, workers: int | None, tell: Callable[[str], None]) -> Repairs:
    """Compute what is damaged again, on worker processes of this machine."""
    if report.is_clean:
        return Repairs()
    with local_client(workers or os.cpu_count() or 1) as client:
        return repair(report, client, tell=tell)


def print_repairs(repairs: Repairs, after: Report, *, as_json: bool) -> None:
    """Print what was mended, what could not be, and what a second look found."""
    if as_json:
        print_json({**asdict(repairs), "clean": after.is_clean, "after": asdict(after)})
        return
    out.print(
        f"{len(repairs.units)} units computed again, {len(repairs.removed)} stray objects removed, "
        f"{len(repairs.sealed)} manifests written again"
    )
    for fault in repairs.failed:
        err.print(f"not mended: {fault}", markup=False)
    print_check(after, as_json=False)
