"""Stage "predict": a network over an aligned volume, into a volume of its own.

The only stage of a run of its kind (`alignment.predicting.runs`). A unit is a shard: it reads what
its patches need, and its key holds the digests of the shards that it reads, so that a new version
of the aligned volume has just those predicted again which it changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.driving.turns import Step, own_turn
from alignment.errors import DataError
from alignment.predicting.layout import Layout
from alignment.predicting.models import model_bytes, model_errors
from alignment.predicting.networks import laid_out
from alignment.predicting.runs import MODEL_PHASE, SHARDS, Prediction, layout_of, load
from alignment.stages.units import Phase, Record, Ref, Unit, Whole
from inference.backends.files import load_network, on_engine
from inference.network import ZYX, Backend, PatchNetwork, Tile
from inference.overlap import predict_block
from storage.commit import records
from storage.commit.keys import canonical
from storage.errors import MissingError
from storage.grid import Box, tile
from storage.journal import digest_of
from storage.prediction import GROUP, create_prediction
from storage.store import create_bytes, join, read_bytes
from storage.volume import open_array, read, write_region, write_unit

RUNTIMES: dict[Backend, tuple[str, ...]] = {
    "keras": ("keras", "tensorflow", "tensorflow-cpu"),
    # These read files of their kind; the engine itself is of the project's sources.
    "engine": ("h5py", "onnx"),
}
"""Libraries through whose hands a network's numbers go, beside those of every stage."""

SCALES: dict[str, Callable[[NDArray[Any]], NDArray[np.float32]]] = {
    "unit": lambda voxels: voxels.astype(np.float32) / np.float32(255),
    "symmetric": lambda voxels: voxels.astype(np.float32) / np.float32(127.5) - np.float32(1),
    "raw": lambda voxels: voxels.astype(np.float32),
}


def phases(run: Prediction) -> Iterator[Phase]:
    """Yield the model, then the shards."""
    yield model_phase()
    layout = layout_of(run.uri)
    create_prediction(
        run.uri,
        channels=layout.channels,
        shape=run.shape,
        chunk=layout.chunk,
        shard=layout.shard,
        dtype=run.config.volume.dtype,
        resolution_nm=run.resolution_nm,
        first_nm=run.first_nm,
    )
    units = list(tile(run.shape, layout.shard, mip=run.config.patches.mip))
    yield Phase(SHARDS, units, predict_shard, reads_shards)


def model_phase() -> Phase:
    """Return the phase of the model, which is done when the run is prepared."""
    return Phase(MODEL_PHASE, [Whole()], freeze_model, reads_model)


def reads_model(_: Unit, *, run_uri: str) -> list[str]:
    """Return the model, what is to be done with it, and what runs it."""
    run = load(run_uri)
    settings = run.config.model_dump(mode="json", exclude={"limits"})
    return [
        f"model {run.model_digest}",
        f"settings {canonical(settings).decode()}",
        f"shape {list(run.shape)}",
        *_runtimes("keras"),
    ]


def freeze_model(_: Unit, *, run_uri: str) -> Record:
    """Copy the model into the run; record what it asks of the patches."""
    run = load(run_uri)
    data = model_bytes(run.model_uri)
    if digest_of(data) != run.model_digest:
        raise DataError(
            f"{run.model_uri} was changed since the run was made. Start a new run with it"
        )
    with model_errors():
        layout = laid_out(data, run.shape, run.config)
    create_bytes(model_uri(run), data)
    runtimes = _runtimes(layout.backend)
    return {**layout.as_dict(), "digest": run.model_digest, "runtimes": runtimes}


def model_uri(run: Prediction) -> str:
    """Return where the run has its model."""
    is_onnx = run.model_uri.endswith(".onnx")
    return join(run.uri, "model.onnx" if is_onnx else "model.keras")


def reads_shards(box: Box, *, run_uri: str) -> list[Ref | str]:
    """Return the model, the settings, and the shards of the aligned volume that a shard sees."""
    run = load(run_uri)
    settings = run.config.patches.model_dump(mode="json", exclude={"mip"})
    layout = layout_of(run_uri)
    low, high = layout.grid.needed(box.start, box.stop)
    seen = Box(low, high, box.mip).clip(run.shape)
    return [
        f"model {run.model_digest}",
        f"by {layout.backend} {layout.isa}",
        *([f"tiles of {run.config.network.tile_px}"] if layout.backend == "engine" else []),
        *_runtimes(layout.backend),
        f"settings {canonical(settings).decode()}, stored as {run.config.volume.dtype}"
        + (", empty where the volume is" if run.config.volume.blank_empty else ""),
        f"patches of {layout.patch} in shards of {layout.shard}, chunks of {layout.chunk}",
        f"sees {seen.start} to {seen.stop}",
        *(f"aligned {digest}" for digest in source_digests(run, seen)),
    ]


def source_digests(run: Prediction, box: Box) -> Iterator[str]:
    """Yield place and digest of each object of the aligned volume in which a box lies."""
    array = run.source
    unit = write_unit(array)
    first = tuple(a // u for a, u in zip(box.start, unit, strict=True))
    last = tuple(-(-b // u) for b, u in zip(box.stop, unit, strict=True))
    for place in product(*map(range, first, last)):
        start = tuple(p * u for p, u in zip(place, unit, strict=True))
        stop = tuple(a + u for a, u in zip(start, unit, strict=True))
        name = "/".join([f"aligned/{box.mip}/c", *map(str, place)])
        yield f"{name} {_digest(run.source_run_uri, Box(start, stop, box.mip), name)}"


@lru_cache(maxsize=65_536)
def _digest(run_uri: str, shard: Box, name: str) -> str:
    """Return the digest of an object by the record of the unit that wrote it."""
    finest = shard
    for _ in range(shard.mip):
        finest = finest.finer()
    for stage, phase, unit in (
        ("render", "shards", finest.label),  # the first levels are drawn with mip 0
        ("pyramid", f"mip{shard.mip}", shard.label),
    ):
        try:
            objects = records.read_commit(run_uri, stage, phase, unit).objects
        except MissingError:
            continue
        found = [stored.blake3 for stored in objects if stored.path == name]
        if found:
            return found[0]
    raise MissingError(f"no record of {run_uri} names {name}; look at it with `petalign verify`")


def predict_shard(box: Box, *, run_uri: str) -> Record:
    """Write one shard of the prediction; the worker reads the next one meanwhile."""
    run, layout = load(run_uri), layout_of(run_uri)
    low, high = layout.grid.needed(box.start, box.stop)
    voxels = read(run.source, Box(low, high, box.mip))
    target = open_array(run_uri, f"{GROUP}/0")
    with own_turn() as turn:
        turn.take(Step.COMPUTE)
        with model_errors():
            stored = predict_block(
                network_of(run_uri),
                voxels,
                layout.grid,
                box.start,
                box.stop,
                channels=layout.channels,
                scale=SCALES[run.config.patches.scale],
                batch=run.config.patches.batch,
                skip_empty=run.config.patches.skip_empty,
                encode=partial(encoded, dtype=run.config.volume.dtype),
                dtype=run.config.volume.dtype,
            )
            if run.config.volume.blank_empty:
                at = zip(box.start, box.stop, low, strict=True)
                inside = tuple(slice(a - n, b - n) for a, b, n in at)
                stored[:, voxels[inside] == 0] = 0  # no data
        turn.take(Step.WRITE)
        digest = write_region(target, (slice(None), *box.slices), stored)
    return {
        "sha256": digest,
        "bytes_read": int(voxels.nbytes),
        "bytes_written": int(stored.nbytes),
    }


def encoded(values: NDArray[np.float32], *, dtype: str) -> NDArray[Any]:
    """Return values as they are stored.

    >>> encoded(np.array([-0.1, 0.5, 2.0], np.float32), dtype="uint8")
    array([  0, 128, 255], dtype=uint8)

    Raises
    ------
    DataError
        If float16 cannot hold one.
    """
    if dtype == "uint8":
        scaled = np.multiply(values, np.float32(255))
        return np.rint(scaled, out=scaled).clip(0, 255, out=scaled).astype(np.uint8)
    largest = float(np.abs(values).max(initial=0.0))
    if largest > np.finfo(np.float16).max:
        raise DataError(
            f"the network gave {largest:g}, which float16 cannot hold; is patches.scale what it "
            "was trained with?"
        )
    return values.astype(np.float16)


def network_of(run_uri: str) -> PatchNetwork:
    """Return the network of a prediction; each worker loads it once, whatever runs it is of."""
    return _network(_model_of(load(run_uri), layout_of(run_uri)))


@dataclass(frozen=True)
class _Model:
    digest: str
    backend: Backend
    isa: str
    tile_px: Tile
    threads: int
    shrink: ZYX
    uri: str = field(compare=False)


def _model_of(run: Prediction, layout: Layout) -> _Model:
    return _Model(
        run.model_digest,
        layout.backend,
        layout.isa,
        run.config.network.tile_px,
        run.config.limits.threads,
        layout.shrink,
        model_uri(run),
    )


@lru_cache(maxsize=1)
def _network(model: _Model) -> PatchNetwork:
    data = read_bytes(model.uri)
    if digest_of(data) != model.digest:
        raise DataError(f"{model.uri} was changed; mend it with `petalign repair`")
    if model.backend == "keras":
        return load_network(data)
    return on_engine(
        data, isa=model.isa, tile_px=model.tile_px, threads=model.threads, shrink=model.shrink
    )


def _runtimes(backend: Backend) -> list[str]:
    found = []
    for name in RUNTIMES[backend]:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            continue
    return found
