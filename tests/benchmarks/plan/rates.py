"""Measure the rates that plans are made with: ``python -m tests.benchmarks.plan.rates``.

``--write`` puts them into alignment/planning/rates.json. ``--folder`` keeps the runs, so that the
rates can be fitted again. ``--networks`` measures that of networks alone, and leaves the others.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from alignment.config import RelaxConfig
from alignment.planning import rates as planning
from alignment.planning.counts import count_stages
from alignment.planning.networks import gflop_per_mpx, tile_shape
from alignment.planning.outcome import seen, taken
from alignment.planning.rates import (
    NetworkRate,
    Rates,
    Sample,
    fit_stage,
    shipped_rates,
    write_rates,
)
from alignment.relax import relax_stack
from alignment.runs import Run
from alignment.stages import ORDER
from inference.model import Predict
from inference.tiling import TILE_PX
from inference.transform import predictor_of
from storage import store
from storage.volume import create_array, open_array, read_region, write_region
from tests.benchmarks.machine import machine
from tests.benchmarks.plan.measure import Actual, actual, align
from tests.benchmarks.plan.stacks import CALIBRATION
from tests.benchmarks.relax.problems import SPACING_PX, make_problem
from tests.inference.networks import drawn, grey

NETWORK_WIDTHS = (8, 16, 32, 64)
"""Those of the shipped network. Wider ones do more in a second: a plan takes them for dearer."""

FILE = Path(planning.__file__).with_name("rates.json")


def main() -> None:
    """Measure, and print or write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--networks", action="store_true")
    arguments = parser.parse_args()
    if arguments.networks:
        found = replace(shipped_rates(), network=network_rate())
    else:
        found = _measured(arguments.folder)
    for stage, rate in found.stages.items():
        print(stage, rate)
    print(found.stored, found.record_bytes, found.object_bytes, found.decode_s_per_gb)
    print(found.network)
    if arguments.write:
        write_rates(FILE, found)


def _measured(kept: Path | None) -> Rates:
    """Align the stacks, in a folder that is kept if one is given, and fit all rates."""
    with tempfile.TemporaryDirectory() as scratch:
        runs = [align(case, kept or Path(scratch)) for case in CALIBRATION]
        return fit(runs, decode_s_per_gb(Path(scratch)))


def fit(runs: list[Run], decode_s: float) -> Rates:
    """Return the rates that fit some runs."""
    samples: list[Sample] = [sample for run in runs for sample in taken(run)]
    stages = {
        stage: fit_stage([s for s in samples if s.stage == stage], decode_s) for stage in ORDER
    }
    left = [(run, actual(run)) for run in runs]
    # The meshes of small stacks take no time beside all else that the stage does.
    stages["relax"] = replace(stages["relax"], work_s=relax_s_per_1000_nodes())
    # One of the runs has levels that are made this way; halving costs no more than drawing.
    stages["pyramid"] = replace(stages["pyramid"], work_s=stages["render"].work_s)
    record, each = _told([found for _, stages in left for found in stages.values()])
    stacks = ", ".join(case.name for case in CALIBRATION)
    when = datetime.now(UTC).date().isoformat()
    return Rates(
        measured=f"{when}, {machine('numpy', 'zarr')} On {stacks}.",
        stages=stages,
        decode_s_per_gb=round(decode_s, 2),
        stored=_stored(left),
        record_bytes=round(record, 1),
        object_bytes=round(each, 1),
        report_bytes=round(float(np.mean([_report_bytes(run) for run in runs]))),
        retried=_retried(runs),
        network=network_rate(),
    )


def _retried(runs: list[Run]) -> float:
    """Return the share of the blocks that were matched again, of all that could have been."""
    stacks = [seen(run) for run in runs]
    could = [sum(stack.retry_pairs) * stack.blocks for stack in stacks]
    again = sum(n * stack.guess.retried for n, stack in zip(could, stacks, strict=True))
    return round(again / sum(could), 3)


def _report_bytes(run: Run) -> int:
    return sum(store.size(store.join(run.uri, name)) for name in ("report.html", "qc.json"))


def _stored(left: list[tuple[Run, dict[str, Actual]]]) -> dict[str, float]:
    """Return stored over plain bytes of every array, over all runs."""
    plain: Counter[str] = Counter()
    stored: Counter[str] = Counter()
    for run, stages in left:
        for count in count_stages(seen(run)):
            for array in count.arrays:
                plain[array.path.partition("/")[0]] += round(array.nbytes * array.filled)
        for found in stages.values():
            for path, size in found.data_bytes.items():
                stored["matches" if path == "rounds" else path] += size
    return {path: round(stored[path] / plain[path], 4) for path in sorted(plain) if stored[path]}


def _told(found: list[Actual]) -> tuple[float, float]:
    """Return what a unit and an object add to records and manifests, bytes."""
    terms = np.array([[a.units, a.data_objects] for a in found], np.float64)
    (record, each), _ = nnls(terms, np.array([a.record_bytes for a in found], np.float64))
    return record, each


def relax_s_per_1000_nodes() -> float:
    """Return the processor time of relaxing a mesh of 80,000 nodes with the default settings."""
    problem = make_problem(8, 100, 100)
    begun = time.process_time()
    relax_stack(problem.pairs, 8, problem.canvas_yx, SPACING_PX, RelaxConfig(), threads=1)
    return float(f"{(time.process_time() - begun) / problem.nodes * 1e3:.3g}")


def decode_s_per_gb(folder: Path) -> float:
    """Return the processor time of reading 1e9 bytes of noise in chunks; the best of three."""
    side, uri = 4096, folder.as_uri()
    noise = np.random.default_rng(0).integers(0, 200, (1, side, side), np.uint8)
    create_array(
        uri, "noise", shape=noise.shape, chunk=(1, 512, 512), shard=(1, side, side), dtype="uint8",
        fill_value=0, dimension_names=("z", "y", "x"),
    )  # fmt: skip
    region = (slice(0, 1), slice(0, side), slice(0, side))
    write_region(open_array(uri, "noise"), region, noise)
    times = []
    for _ in range(3):
        begun = time.process_time()
        read_region(open_array(uri, "noise"), region)
        times.append(time.process_time() - begun)
    return min(times) / noise.nbytes * 1e9


def network_rate(widths: tuple[int, ...] = NETWORK_WIDTHS, *, times: int = 5) -> NetworkRate:
    """Return what a network does on a whole tile, in one thread of the engine; the best of some."""
    network = drawn(widths)
    sides = tile_shape((TILE_PX, TILE_PX), network.config)
    best = least_s(predictor_of("engine")(network), grey(sides), times)
    gflop = gflop_per_mpx(network.config) * prod(sides) / 1e6
    when = datetime.now(UTC).date().isoformat()
    told = machine("numpy")
    name = "-".join(map(str, widths))
    return NetworkRate(float(f"{gflop / best:.3g}"), f"{when}, {told} One thread. On {name}.")


def least_s(predict: Predict, image: NDArray[np.float32], times: int) -> float:
    """Return the processor time of a network on an image; the first, which compiles, is not one."""
    predict(image)
    taken_s = []
    for _ in range(times):
        begun = time.process_time()
        predict(image)
        taken_s.append(time.process_time() - begun)
    return min(taken_s)


if __name__ == "__main__":
    main()
