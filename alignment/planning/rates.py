"""What work costs: measured on a machine, kept in a small file, and read by the plan.

Time of a stage = units x its time for any unit + work x its time for a unit of work + what it
decodes. Where a network makes the features, its operations are the work. Memory = what its workers
hold anyway + a factor x what its largest unit allocates. The shipped rates were measured by
``python -m tests.benchmarks.plan.rates``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from alignment.errors import ConfigError
from alignment.planning.counts import StageCount, count_stages
from alignment.planning.reads import read_by
from alignment.planning.stack import Stack
from alignment.planning.work import marking_gflop, memory_of, network_gflop, work_of

LEAST_SHARE = 0.1
"""Of a stage's time that is not decoding, however much it decodes."""
TELLING_SHARE = 0.15
"""Share of a worker's memory by which the largest units of runs must differ, to tell a factor."""


@dataclass(frozen=True)
class StageRate:
    """What one stage costs."""

    unit_s: float
    """Processor seconds of a unit, whatever it does: key, record, arrays that are opened."""
    work_s: float
    """Processor seconds of a unit of work (`work.WORK_UNITS`)."""
    base_bytes: int
    """Memory of a worker that does a very small unit."""
    memory_factor: float
    """Measured over counted memory (`work.memory_of`), beyond that."""


@dataclass(frozen=True)
class NetworkRate:
    """What networks cost, whatever their size."""

    gflop_per_s: float
    """1e9 operations (`networks.gflop_per_mpx`) that the engine does in a processor second."""
    measured: str
    """When, on what."""


@dataclass(frozen=True)
class Rates:
    """All of them, as the file holds them."""

    measured: str
    """When, on what."""
    stages: Mapping[str, StageRate]
    decode_s_per_gb: float
    """Processor seconds to read, check and decode 1e9 bytes of chunks."""
    stored: Mapping[str, float]
    """Bytes in the store per byte of values, by array."""
    record_bytes: float
    """Of a unit's record, and of its line in the manifest, without its objects."""
    object_bytes: float
    """That an object adds to them."""
    report_bytes: int
    """Of the report, most of it pictures, of which there are about as many in every run."""
    retried: float
    """Share of the blocks that were matched again with a farther section."""
    network: NetworkRate


@dataclass(frozen=True)
class Sample:
    """What one stage of a run took."""

    stack: Stack
    stage: str
    busy_s: float
    peak_bytes: int


def shipped_rates() -> Rates:
    """Return the rates that come with the package."""
    return _parsed(resources.files(__package__).joinpath("rates.json").read_text("utf-8"), "")


def read_rates(path: Path) -> Rates:
    """Return the rates of a file; the shipped one of networks, if it was made without.

    Raises
    ------
    ConfigError
        If it does not hold any.
    """
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(
            f"--rates {path}: {error.strerror}; make one: petalign plan --calibrate RUN"
        ) from None
    return _parsed(text, str(path), network=shipped_rates().network)


def write_rates(path: Path, rates: Rates) -> None:
    """Write rates as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(asdict(rates), indent=1, sort_keys=True) + "\n", "utf-8")


def _parsed(text: str, path: str, *, network: NetworkRate | None = None) -> Rates:
    try:
        values: dict[str, Any] = json.loads(text)
        stages = {name: StageRate(**rate) for name, rate in values.pop("stages").items()}
        if "network" in values or network is None:
            network = NetworkRate(**values.pop("network"))
        return Rates(stages=stages, network=network, **values)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(
            f"{path} does not hold rates ({error}); make them: petalign plan --calibrate RUN"
        ) from None


def core_s(stage: str, stack: Stack, count: StageCount, rates: Rates) -> float:
    """Return the processor seconds of a stage."""
    rate = rates.stages[stage]
    overhead = count.units * rate.unit_s + _decoding_s(stage, stack, rates.decode_s_per_gb)
    if _is_by_network(stage, stack):
        return overhead + network_gflop(stack) / rates.network.gflop_per_s
    return overhead + work_of(stage, stack) * rate.work_s + _marking_s(stage, stack, rates)


def _marking_s(stage: str, stack: Stack, rates: Rates) -> float:
    return marking_gflop(stack) / rates.network.gflop_per_s if stage == "masks" else 0.0


def _is_by_network(stage: str, stack: Stack) -> bool:
    return stage == "features" and stack.network is not None


def peak_bytes(stage: str, stack: Stack, rates: Rates) -> int:
    """Return the most memory that a worker of a stage holds."""
    rate = rates.stages[stage]
    return round(rate.base_bytes + rate.memory_factor * memory_of(stage, stack))


def _decoding_s(stage: str, stack: Stack, s_per_gb: float) -> float:
    decoded = sum(read.nbytes for read in read_by(stage, stack) if read.path != "source")
    return decoded / 1e9 * s_per_gb


def fit_stage(samples: Sequence[Sample], decode_s_per_gb: float) -> StageRate:
    """Fit the rates of one stage to runs of several sizes, each by its share: no size rules.

    What a network did says nothing of the rates of a stage, and may not be among the samples.
    """
    if any(_is_by_network(sample.stage, sample.stack) for sample in samples):
        raise ValueError("rates of 'features' are those of the band-pass; got a run by a network")
    if any(sample.stage == "masks" and sample.stack.marking for sample in samples):
        raise ValueError("rates of 'masks' are those without a network; got a run with one")
    units = []
    for sample in samples:
        counts = {count.stage: count for count in count_stages(sample.stack)}
        units.append(counts[sample.stage].units)
    busy = np.array([
        max(s.busy_s - _decoding_s(s.stage, s.stack, decode_s_per_gb), LEAST_SHARE * s.busy_s)
        for s in samples
    ])  # fmt: skip
    work = [work_of(s.stage, s.stack) for s in samples]
    unit_s, work_s = _relative(np.array([units, work], np.float64).T, busy)
    base, factor = _memory(samples)
    return StageRate(
        float(f"{unit_s:.3g}"),
        float(f"{work_s:.3g}"),
        int(round(base, -5)),
        round(float(factor), 2),
    )


def _memory(samples: Sequence[Sample]) -> tuple[float, float]:
    """Return base and factor of memory; a factor below 1 is noise of what is small."""
    allocated = np.array([memory_of(s.stage, s.stack) for s in samples])
    peaks = np.array([s.peak_bytes for s in samples], np.float64)
    factor = 1.0
    if np.ptp(allocated) >= TELLING_SHARE * peaks.min(initial=np.inf):
        factor = max(float(_relative(np.array([np.ones(len(peaks)), allocated]).T, peaks)[1]), 1.0)
    return max(float((peaks - factor * allocated).mean()), 0.0), factor


def _relative(terms: NDArray[np.float64], values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return non-negative weights of terms, so that relative errors are least."""
    known = values > 0
    if not known.any():
        return np.zeros(terms.shape[1])
    scaled = terms[known] / values[known, None]
    size = np.maximum(np.abs(scaled).max(axis=0), 1e-300)
    weights, _ = nnls(scaled / size, np.ones(int(known.sum())))
    return np.asarray(weights / size)


def calibrated(rates: Rates, taken: Iterable[Sample], told: str) -> Rates:
    """Return rates that would have foretold a run's time on the machine that it ran on.

    One run cannot tell the time of a unit from that of its work, so both are scaled alike; memory
    and sizes stay, since they hang on no machine. Where a network made the features, its rate is
    scaled, and those of the band-pass stay.

    Parameters
    ----------
    told : str
        When, on what.
    """
    stages, network = dict(rates.stages), rates.network
    for sample in taken:
        counts = {count.stage: count for count in count_stages(sample.stack)}
        old, count = stages[sample.stage], counts[sample.stage]
        # What stays as it is: decoding, and of a network all but its operations.
        fixed = _decoding_s(sample.stage, sample.stack, rates.decode_s_per_gb)
        fixed += _marking_s(sample.stage, sample.stack, rates)
        if _is_by_network(sample.stage, sample.stack):
            fixed += count.units * old.unit_s
        planned = core_s(sample.stage, sample.stack, count, rates) - fixed
        if planned <= 0 or sample.busy_s <= 0:
            continue
        scale = max(sample.busy_s - fixed, LEAST_SHARE * sample.busy_s) / planned
        if _is_by_network(sample.stage, sample.stack):
            network = NetworkRate(network.gflop_per_s / scale, told)
        else:
            stages[sample.stage] = replace(
                old, unit_s=old.unit_s * scale, work_s=old.work_s * scale
            )
    return replace(rates, measured=told, stages=stages, network=network)
