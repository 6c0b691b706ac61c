"""The table of faults: what became of each, here and in plain zarr with dask.

``python -m tests.faults.table`` makes all trials (about half an hour on two cores), prints the
table and writes it into ``docs/reliability.md``; ``--trials 200`` makes a sample of each.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

from tests.faults import disk_sweep, flips, server, sweep, workload
from tests.faults.patience import impatient
from tests.faults.proxy import FaultProxy
from tests.faults.verdict import BAD, Trial, counts, show

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- table of faults: begin -->", "<!-- table of faults: end -->"
ALL = 10**6
PROXIES = 3

_HEAD = """\
| fault | tried | unharmed | error, then right | killed, then right | not noticed | \
plain: tried | unharmed | error or killed, then right | not noticed |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|
"""


def main() -> None:
    """Make the trials and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.faults.table")
    parser.add_argument("--trials", type=int, default=ALL, help="of each table, at most")
    parser.add_argument("--flips", type=int, default=10_000, help="damaged shards")
    parser.add_argument("--page", type=Path, default=PAGE, help="where the table is written")
    options = parser.parse_args()
    parts = []
    with ExitStack() as stack, tempfile.TemporaryDirectory() as folder:
        source = workload.write_source(Path(folder) / "raw.tif")
        endpoint = stack.enter_context(server.s3_server())
        stack.enter_context(impatient())
        stack.enter_context(server.pointed_to(endpoint))
        proxies = [stack.enter_context(FaultProxy(endpoint)) for _ in range(PROXIES)]
        parts += _in_s3(source, proxies, options.trials)
        parts.append(_on_disk(source, Path(folder), options.trials))
    parts.append(_at_rest(options.flips))
    text = "\n".join(parts)
    print(text)
    write(options.page, text)


def write(page: Path, text: str) -> None:
    """Put the table between its marks."""
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    if not after:
        raise SystemExit(f"{page} lacks the lines {BEGIN!r} and {END!r}")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")


def _in_s3(source: str, proxies: list[FaultProxy], n: int) -> list[str]:
    writing: list[list[Trial]] = []
    reading: list[list[Trial]] = []
    operations = []
    for stack in (sweep.OURS, sweep.PLAIN):
        good = sweep.golden(stack, source, proxies[0])
        operations.append((len(good.operations), len(good.reads)))
        plans = sweep.sample(sweep.plan(good.operations), n, seed=1)
        writing.append(sweep.sweep(stack, plans, source, good, proxies))
        print(show(writing[-1]), flush=True)
        kinds = [kind for kind in sweep.KINDS if not kind.startswith("kill")]
        plans = sweep.sample(sweep.plan(good.reads, kinds), n, seed=1)
        reading.append(sweep.sweep_reads(stack, plans, good, proxies[0]))
        print(show(reading[-1]), flush=True)
    (ours, our_reads), (plain, plain_reads) = operations
    return [
        f"One fault at each of the {ours} requests of a run in S3 (plain: {plain}):\n",
        _HEAD + _rows(*writing),
        f"At each of the {our_reads} requests of a reader in S3 (plain: {plain_reads}):\n",
        _HEAD + _rows(*reading),
    ]


def _on_disk(source: str, folder: Path, n: int) -> str:
    calls, objects = disk_sweep.golden(source, folder / "golden")
    trials = disk_sweep.sweep(sweep.sample(disk_sweep.plan(calls), n, seed=1), source, objects)
    print(show(trials), flush=True)
    lines = [
        f"At each of the {len(calls)} calls to the file system of the same run on disk:\n",
        "| fault | tried | unharmed | error, then right | killed, then right | not noticed |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    lines += [f"| {kind} | {_cells(found)} |" for kind, found in counts(trials).items()]
    return "\n".join(lines) + "\n"


def _at_rest(n: int) -> str:
    ours = flips.count(n, seed=n)
    tried, silent = flips.count_plain(n // 5, seed=n)
    lines = [
        f"Damaged shards on disk, {len(flips.LAYOUTS)} layouts and types:\n",
        "| damage | tried | noticed by reading | by `verify --full` | mended | plain: tried | "
        "not noticed |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {kind} | {ours.tried[kind]} | {ours.read[kind]} | {ours.verify[kind]} | "
        f"{ours.mended[kind]} | {tried[kind]} | {silent[kind]} |"
        for kind in sorted(ours.tried)
    ]
    return "\n".join(lines) + "\n"


def _rows(ours: Iterable[Trial], plain: Iterable[Trial]) -> str:
    left, right = counts(ours), counts(plain)
    total_left = sum(left.values(), Counter())
    total_right = sum(right.values(), Counter())
    rows = [(kind, left[kind], right.get(kind, Counter())) for kind in sorted(left)]
    rows.append(("**all**", total_left, total_right))
    lines = []
    for kind, here, there in rows:
        again = there["detected"] + there["resumed"] + there["unclear"]
        beside = f"{there.total()} | {there['correct']} | {again} | {_unnoticed(there)}"
        lines.append(f"| {kind} | {_cells(here)} | {beside} |")
    return "\n".join(lines) + "\n"


def _cells(found: Counter[str]) -> str:
    right = f"{found['correct']} | {found['detected'] + found['unclear']} | {found['resumed']}"
    return f"{found.total()} | {right} | {_unnoticed(found)}"


def _unnoticed(found: Counter[str]) -> str:
    """Return how many trials gave other voxels; those that ended badly otherwise in brackets."""
    others = {verdict: found[verdict] for verdict in BAD if verdict not in ("silent", "unclear")}
    told = ", ".join(f"{n} {verdict}" for verdict, n in others.items() if n)
    return f"{found['silent']}" + (f" ({told})" if told else "")


if __name__ == "__main__":
    main()
