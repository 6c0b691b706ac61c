"""Voxels per unit of price: ``python -m tests.benchmarks.engine.cost``.

Takes the speeds of races that ``table`` held (``--networks``, ``--threads``), and prices from
``--prices FILE``. A GPU whose speed nobody has published for a network is [unknown]; what it would
have to reach to be as cheap follows from the price alone. ``--write`` puts the table between its
markers in docs/performance.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.benchmarks.engine.networks import TWELVE
from tests.benchmarks.engine.results import Race, saved
from tests.pages import write_table

PRICES = Path(__file__).with_name("prices.yaml")
WAYS = ("engine", "OpenVINO, float32", "TensorFlow", "PyTorch, channels last")
UNKNOWN = "[unknown]"


def main() -> None:
    """Print, or write, the tables as markdown."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", default="A,B,C,twelve")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prices", type=Path, default=PRICES)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    names = arguments.networks.split(",")
    keys = [key for name in names for key in (TWELVE if name == "twelve" else [name])]
    races = [race for key in keys if (race := saved(key, arguments.threads))]
    if not races:
        raise SystemExit("no races are kept: run `python -m tests.benchmarks.engine.table` first")
    prices = yaml.safe_load(arguments.prices.read_text(encoding="utf-8"))
    text = tables(prices, races)
    print(text)
    if arguments.write:
        write_table("performance.md", "bench-engine-cost", text)


def tables(prices: dict[str, Any], races: Sequence[Race]) -> str:
    """Return voxels per unit of price, the assumptions, and what GPUs would have to reach."""
    cpu = prices["cpu"]
    return "\n".join(
        [
            f"{races[0].machine} Threads: {races[0].threads}. Millions of voxels of output per "
            f"{prices['currency']}, at the price of {cpu['name']}, of which a thread takes one of "
            f"{cpu['cores']} cores:",
            "",
            *_of_cpus(cpu, races),
            "",
            f"What a GPU would have to compute, in Mvoxel/s, to be as cheap as the engine on "
            f"{cpu['name']}; behind the stroke what is published for it:",
            "",
            *_of_gpus(prices, cpu, races),
            "",
            "What these figures rest on:",
            "",
            *_assumptions(prices),
            "",
            "What was published about costs:",
            "",
            *(f"- {one['said']} ({one['source']})" for one in prices["statements"]),
        ]
    )


def per_price(voxels_per_s: float, cpu: dict[str, Any], threads: int) -> float:
    """Return voxels for one unit of the currency.

    >>> round(per_price(1e6, {"per_hour": 0.4, "cores": 8}, threads=2))
    36000000000
    """
    return voxels_per_s * 3600 / (cpu["per_hour"] * threads / cpu["cores"])


def _of_cpus(cpu: dict[str, Any], races: Sequence[Race]) -> list[str]:
    lines = [f"| network | {' | '.join(WAYS)} |", f"|---|{'--:|' * len(WAYS)}"]
    for race in races:
        results = race.results()
        found = [
            f"{per_price(race.voxels * results[way].per_s, cpu, race.threads) / 1e6:,.0f}"
            if way in results
            else ""
            for way in WAYS
        ]
        lines.append(f"| {race.title} | {' | '.join(found)} |")
    return lines


def _of_gpus(prices: dict[str, Any], cpu: dict[str, Any], races: Sequence[Race]) -> list[str]:
    gpus = prices["gpu"]
    titles = [f"{gpu['name']}, {gpu['per_hour']:g} an hour" for gpu in gpus]
    lines = [f"| network | {' | '.join(titles)} |", f"|---|{'--:|' * len(gpus)}"]
    known = {(one["gpu"], one["network"]): one["voxels_per_s"] for one in prices["gpu_speeds"]}
    for race in races:
        results = race.results()
        if "engine" not in results:
            continue
        ours = per_price(race.voxels * results["engine"].per_s, cpu, race.threads)
        cells = []
        for gpu in gpus:
            speed = known.get((gpu["name"], race.key))
            published = f"{speed / 1e6:.1f}" if speed else UNKNOWN
            cells.append(f"{ours * gpu['per_hour'] / 3600 / 1e6:.2f} / {published}")
        lines.append(f"| {race.title} | {' | '.join(cells)} |")
    return lines


def _assumptions(prices: dict[str, Any]) -> list[str]:
    return [
        f"- {one['name']}: {one['per_hour']:g} {prices['currency']} an hour ({one['as_of']}; "
        f"{one['source']}). Assumed: {one['assumed'].strip()}."
        for one in (prices["cpu"], *prices["gpu"])
    ]


if __name__ == "__main__":
    main()
