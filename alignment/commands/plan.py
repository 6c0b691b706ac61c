"""`petalign plan`: what a run would read, write, hold and cost, before anything runs."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

from alignment.commands.console import out, print_json
from alignment.commands.query import find_run
from alignment.config import PipelineConfig
from alignment.errors import ConfigError
from alignment.planning.forecast import plan_shape, plan_source
from alignment.planning.outcome import taken
from alignment.planning.plans import Plan
from alignment.planning.prices import read_prices
from alignment.planning.rates import Rates, calibrated, read_rates, shipped_rates, write_rates
from alignment.planning.refusals import GIB, Limits, check
from alignment.planning.stack import Stack
from alignment.runs import load
from storage.grid import ZYX

HEADINGS = (
    "stage", "units", "tasks/graph", "objects", "PUT", "GET", "read", "written", "peak", "core-h",
)  # fmt: skip


def own_rates_file() -> Path:
    """Return where the rates of this user's machine are kept."""
    from alignment.platform.config import platform_config

    return platform_config(os.environ).home / "rates.json"


def find_rates(path: Path | None) -> Rates:
    """Return the rates of a file, or of this machine if it was calibrated, or the shipped ones."""
    if path is not None:
        return read_rates(path)
    own = own_rates_file()
    return read_rates(own) if own.exists() else shipped_rates()


def calibrate(uri: str, path: Path | None) -> Path:
    """Take the rates from a finished run; return the file that holds them now.

    Raises
    ------
    ConfigError
        If the run does not tell what it took.
    """
    run = load(find_run(uri))
    samples = taken(run)
    if not samples:
        raise ConfigError(
            f"{run.uri} does not tell what its units took: it was made by an older version, or all "
            "of them were taken over from another run. Align something anew"
        )
    target = path or own_rates_file()
    told = f"{datetime.now(UTC).date().isoformat()}, run {run.key} of {run.shape}"
    write_rates(target, calibrated(shipped_rates(), samples, told))
    return target


def make_plan(
    source: str | None,
    shape: ZYX | None,
    config: PipelineConfig,
    *,
    resolution_nm: tuple[float, ...] | None = None,
    canvas: tuple[int, ...] | None = None,
    prices: Path | None = None,
    rates: Path | None = None,
    workers: int = 1,
) -> tuple[Plan, Stack]:
    """Plan a run over a source, or over a stack of which only the shape is known.

    Raises
    ------
    ConfigError
        If neither or both are given.
    """
    if (source is None) == (shape is None):
        raise ConfigError("give either a SOURCE, or --shape Z,Y,X for one that is not there yet")
    known = {
        "rates": find_rates(rates),
        "prices": read_prices(prices),
        "workers": workers,
        "canvas": canvas,
    }
    if source is not None:
        return plan_source(source, config, **known)  # type: ignore[arg-type]
    return plan_shape(shape or (), config, resolution_nm=resolution_nm, **known)  # type: ignore[arg-type]


def print_plan(plan: Plan, stack: Stack, limits: Limits, *, workers: int, as_json: bool) -> None:
    """Print what a run would need; then refuse it if it goes beyond limits."""
    if as_json:
        print_json(plan.as_dict())
    else:
        _print_table(plan)
        _print_sums(plan, workers)
    check(plan, stack, limits)


def _print_table(plan: Plan) -> None:
    nz, ny, nx = plan.shape
    z_nm, y_nm, x_nm = plan.resolution_nm
    out.print(f"{nz:,} sections of {ny:,} x {nx:,} px, voxel {z_nm:g} x {y_nm:g} x {x_nm:g} nm")
    rows: list[tuple[str, ...]] = [HEADINGS]
    for s in plan.stages:
        numbers = [f"{n:,}" for n in (s.units, s.tasks_per_graph, s.objects, s.puts, s.gets)]
        sizes = [size(n) for n in (s.bytes_read, s.bytes_written, s.peak_bytes)]
        rows.append((s.stage, *numbers, *sizes, hours(s.core_s)))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    # A table of rich would cut figures short where the terminal is narrow.
    for name, *cells in rows:
        line = [cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True)]
        out.print("  ".join([name.ljust(widths[0]), *line]), markup=False)


def _print_sums(plan: Plan, workers: int) -> None:
    cost, currency = plan.cost, plan.prices.currency
    peak = plan.peak_bytes_per_worker / GIB
    time = plan.core_hours / workers
    out.print(
        f"about {plan.core_hours:,.2f} core-hours, {time:,.2f} h on {workers:,} workers of "
        f"{peak:,.1f} GiB; {size(plan.bytes_written)} stored"
    )
    out.print(
        f"about {cost['run']:,.2f} {currency} (cores {cost['cores']:,.2f}, requests "
        f"{cost['puts'] + cost['gets']:,.2f}), and {cost['storage_per_month']:,.2f} {currency} a "
        "month while all of it is kept"
    )
    for assumption in plan.assumptions:
        out.print(f"  assumed: {assumption}", markup=False)


def hours(core_s: float) -> str:
    """Return core-hours with as many digits as they deserve.

    >>> hours(36), hours(360_000)
    ('0.01', '100')
    """
    value = core_s / 3600
    return f"{value:,.0f}" if value >= 100 else f"{value:.2f}"


def size(count: float) -> str:
    """Return bytes in decimal units.

    >>> size(1_234_567)
    '1.2 MB'
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:,.1f} PB" if count < 1000 else f"{count:,.0f} PB"
