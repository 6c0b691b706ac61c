"""What a prediction will take, by formulas: patches, bytes, and the memory of a worker."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from alignment.errors import ConfigError
from alignment.predicting.config import PredictConfig
from alignment.predicting.layout import Layout
from inference.network import Backend
from storage.grid import tile

PROCESS_BYTES: dict[Backend, int] = {"engine": 300 * 2**20, "keras": 750 * 2**20}
"""Of a worker that has imported what it computes by, and waits."""
GIB = 2**30


@dataclass(frozen=True)
class Figures:
    """What is known before anything is computed."""

    voxels: int
    units: int
    """Shards."""
    patches: int
    """Of all shards; fewer where the volume is empty."""
    overhead: float
    """Voxels that the network sees for each that is kept."""
    bytes_read: int
    """As they are decoded, margins of the blocks included."""
    bytes_written: int
    """Before they are compressed."""
    block_bytes: int
    """Most that the blocks take that a thread has at hand."""
    worker_bytes: int
    """Of a worker with one thread: its blocks, the model, and the process itself."""

    def as_dict(self) -> dict[str, Any]:
        """Return it for a JSON document."""
        return asdict(self)


def figures(layout: Layout, config: PredictConfig) -> Figures:
    """Return the figures of a prediction.

    A worker computes one block while it reads the next and writes the last, by
    `alignment.driving.turns`. It holds the voxels that two need (1 byte each); one as it is
    computed, which blending sums up as float32; one as it is stored, its chunks as they are
    encoded, and once more as an object; and a batch of patches with what the layers of the network
    give for them, as long as it is needed.
    """
    grid, shape = layout.grid, layout.shape
    item = 1 if config.volume.dtype == "uint8" else 2
    patches, read, halo = 1, 1, 1
    for axis, n in enumerate(shape):  # blocks are boxes on a grid, so counts of axes multiply
        line = grid.along(axis)
        blocks = [(b.start, b.stop) for b in tile((n,), (layout.shard[axis],), mip=0)]
        needed = [(a[0], b[0]) for a, b in (line.needed(*block) for block in blocks)]
        patches *= sum(line.count(*block) for block in blocks)
        read *= sum(min(b, n) - max(a, 0) for a, b in needed)
        halo *= max(b - a for a, b in needed)
    values = layout.channels * prod(min(s, n) for s, n in zip(layout.shard, shape, strict=True))
    values_of_batch = config.patches.batch * prod(layout.patch) * (2 + layout.channels)
    batch = 4 * values_of_batch + layout.working_bytes
    sums = 4 if layout.join == "blend" else 0
    block = 2 * halo + values * (sums + item) + values * 3 * item + batch
    return Figures(
        voxels=prod(shape),
        units=prod(-(-n // s) for n, s in zip(shape, layout.shard, strict=True)),
        patches=patches,
        overhead=patches * prod(layout.patch) / prod(shape),
        bytes_read=read,
        bytes_written=layout.channels * prod(shape) * item,
        block_bytes=block,
        worker_bytes=PROCESS_BYTES[layout.backend] + 2 * layout.model_bytes + block,
    )


def check_limits(found: Figures, layout: Layout, config: PredictConfig) -> None:
    """Refuse what would not fit into a worker.

    Raises
    ------
    ConfigError
        With the settings to change.
    """
    most = config.limits.worker_memory_gib
    if found.worker_bytes <= most * GIB:
        return
    raise ConfigError(
        f"a block needs about {found.worker_bytes / GIB:.2f} GiB in a worker, more than "
        f"limits.worker_memory_gib={most:g}: {config.patches.batch} patches of {layout.patch} "
        f"(z, y, x) take {layout.working_bytes / GIB:.2f} GiB in the network, shards are "
        f"{layout.shard} with {layout.channels} channels. Lower patches.patch_px, patches.batch or "
        "volume.shard; or raise limits.worker_memory_gib if the workers have more"
    )
