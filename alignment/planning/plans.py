"""The plan of a run: what each stage reads, writes, holds and costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import ceil
from typing import Any

from alignment.config import PipelineConfig
from alignment.planning.counts import ArrayPlan, StageCount, count_stages
from alignment.planning.prices import Prices
from alignment.planning.rates import Rates, core_s, peak_bytes
from alignment.planning.reads import Read, read_by
from alignment.planning.stack import Guess, Stack
from storage.grid import ZYX

METADATA_BYTES = 1_400
"""Of the zarr.json of an array."""
INDEX_BYTES = 24
"""That a chunk adds to an object: its place in the index, a checksum, the frame of the codec."""
TAIL_BYTES = 4
"""That is kept of each object beside the manifests."""
DRIVER_GETS = 20
"""Requests of a driver besides those of its units: the run, listings, its lease."""
HEARTBEAT_S = 2.0
RUN_OBJECTS = 13
"""Of a run as a whole: its definition, and the states of its stages."""


@dataclass(frozen=True)
class StagePlan:
    """One stage of the plan."""

    stage: str
    units: int
    graphs: int
    """Dask graphs: one a slab, and one for what needs all slabs."""
    tasks_per_graph: int
    """Units of the largest phase of one graph."""
    objects: int
    """Objects in the store: data, metadata, records, and what sums them up."""
    data_objects: int
    """Of them, those that hold voxels or values."""
    puts: int
    gets: int
    bytes_read: int
    """As they come from the store."""
    bytes_written: int
    """As they lie in the store, all objects."""
    data_bytes: int
    """Of them, those of voxels, values, and what describes their arrays."""
    values_bytes: int
    """What is written, before compression."""
    chunk_bytes: int
    """The largest chunk that is encoded at once."""
    peak_bytes: int
    """Of a worker."""
    core_s: float


@dataclass(frozen=True)
class Plan:
    """The whole plan; `as_dict` is what ``petalign plan --json`` prints."""

    source: str
    shape: ZYX
    canvas: tuple[int, int]
    resolution_nm: tuple[float, ...]
    slabs: int
    stages: tuple[StagePlan, ...]
    stored: Mapping[str, float]
    """Bytes in the store per byte of values, by array; `assumptions` says where they are from."""
    assumptions: tuple[str, ...]
    prices: Prices

    @property
    def core_s(self) -> float:
        """Core-seconds of all stages."""
        return sum(stage.core_s for stage in self.stages)

    @property
    def core_hours(self) -> float:
        """Core-hours of all stages."""
        return self.core_s / 3600

    @property
    def peak_bytes_per_worker(self) -> int:
        """Of the stage that needs most."""
        return max(stage.peak_bytes for stage in self.stages)

    @property
    def objects(self) -> int:
        """All objects that are left in the store."""
        return RUN_OBJECTS + sum(stage.objects for stage in self.stages)

    @property
    def bytes_written(self) -> int:
        """All that is left in the store."""
        return sum(stage.bytes_written for stage in self.stages)

    @property
    def cost(self) -> dict[str, float]:
        """Return what the run costs, by resource; storage is for each month that all is kept."""
        prices = self.prices
        puts = sum(stage.puts for stage in self.stages)
        gets = sum(stage.gets for stage in self.stages)
        parts = {
            "cores": self.core_hours * prices.core_hour,
            "puts": puts / 1000 * prices.put_per_1000,
            "gets": gets / 1000 * prices.get_per_1000,
        }
        month = self.bytes_written / 1e9 * prices.storage_gb_month
        return {**parts, "run": sum(parts.values()), "storage_per_month": month}

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "source": self.source,
            "shape": list(self.shape),
            "canvas": list(self.canvas),
            "resolution_nm": list(self.resolution_nm),
            "slabs": self.slabs,
            "stages": [asdict(stage) for stage in self.stages],
            "stored": dict(self.stored),
            "assumptions": list(self.assumptions),
            "prices": self.prices.model_dump(),
            "cost": self.cost,
            "core_s": self.core_s,
            "core_hours": self.core_hours,
            "peak_bytes_per_worker": self.peak_bytes_per_worker,
            "objects": self.objects,
            "bytes_written": self.bytes_written,
        }


def plan_stages(
    stack: Stack, rates: Rates, stored: Mapping[str, float], *, workers: int = 1
) -> tuple[StagePlan, ...]:
    """Return what every stage takes and leaves, in order: a function of shape and settings.

    Parameters
    ----------
    stored : mapping
        Bytes in the store per byte of values, by array; 1 for what it does not name.
    workers : int
        Cores that work at a time; they decide how long drivers report.
    """
    return tuple(_plan_stage(count, stack, rates, stored, workers) for count in count_stages(stack))


def guess_of(rates: Rates, **known: Any) -> Guess:
    """Return the guesses that rates make, and what is known better."""
    return Guess(**{"retried": rates.retried, **known})


def resolution_of(config: PipelineConfig, found: tuple[float, ...] | None) -> tuple[float, ...]:
    """Return the voxel size of a run."""
    from alignment.runs import DEFAULT_RESOLUTION_NM

    return config.volume.resolution_nm or found or DEFAULT_RESOLUTION_NM


def _plan_stage(
    count: StageCount, stack: Stack, rates: Rates, stored: Mapping[str, float], workers: int
) -> StagePlan:
    reads = read_by(count.stage, stack)
    seconds = core_s(count.stage, stack, count, rates)
    graphs, tasks = _graphs(count, stack.slabs)
    objects = count.data_objects + count.metadata + count.units + count.sealing + count.loose
    listings = len(count.parts)
    beats = seconds / workers / HEARTBEAT_S + 3 * graphs
    return StagePlan(
        stage=count.stage,
        units=count.units,
        graphs=graphs,
        tasks_per_graph=tasks,
        objects=objects,
        data_objects=count.data_objects,
        puts=round(objects + listings + beats),
        gets=_gets(count, reads, stack),
        bytes_read=round(sum(read.nbytes * stored.get(_top(read.path), 1.0) for read in reads)),
        bytes_written=_written(count, stored, rates),
        data_bytes=_sealed(count, stored),
        values_bytes=sum(array.nbytes for array in count.arrays),
        chunk_bytes=max((array.chunk_bytes for array in count.arrays), default=0),
        peak_bytes=peak_bytes(count.stage, stack, rates),
        core_s=round(seconds, 2),
    )


def _top(path: str) -> str:
    return path.partition("/")[0]


def _graphs(count: StageCount, slabs: int) -> tuple[int, int]:
    """Return how many graphs a stage has, and the most units that one of them holds.

    Slabs do the phases before the first one that needs all of them.
    """
    parts = [part for part in count.parts if part.times]
    local = 0
    while local < len(parts) and parts[local].is_local:
        local += 1
    tasks = [ceil(part.units / slabs) for part in parts[:local]]
    tasks += [part.units for part in parts[local:]]
    graphs = (slabs if local else 0) + (1 if local < len(parts) or not local else 0)
    return graphs, max(tasks, default=0)


def _gets(count: StageCount, reads: tuple[Read, ...], stack: Stack) -> int:
    """Return requests that read: voxels, what describes them, records, and a look at each object.

    A worker remembers the records that it has read, so at least each is read once; drivers read
    them to seal the stage.
    """
    described = 2 * count.units
    checked = count.data_objects if stack.config.volume.read_back != "none" else 0
    sealed = 0 if count.stage == "publish" else count.units
    told = 2 * count.units
    return sum(read.gets for read in reads) + described + checked + sealed + told + DRIVER_GETS


def _written(count: StageCount, stored: Mapping[str, float], rates: Rates) -> int:
    """Return the bytes of all objects of a stage."""
    told = count.units * rates.record_bytes + count.data_objects * rates.object_bytes
    tails = TAIL_BYTES * sum(array.grid for array in count.arrays)
    report = rates.report_bytes if count.stage == "qc" else 0
    return round(_sealed(count, stored) + told + tails + report)


def _sealed(count: StageCount, stored: Mapping[str, float]) -> int:
    """Return the bytes that the seal of a stage will sum up."""
    data = sum(_data_bytes(array, stored) for array in count.arrays)
    return round(data + METADATA_BYTES * count.metadata)


def _data_bytes(array: ArrayPlan, stored: Mapping[str, float]) -> float:
    share = stored.get(array.path, stored.get(_top(array.path), 1.0))
    index = INDEX_BYTES * array.chunks_per_object * array.objects
    return array.nbytes * array.filled * share + index
