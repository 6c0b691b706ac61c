"""Stage "pyramid": mip k + 1 of the aligned volume from mip k."""

from __future__ import annotations

from collections.abc import Iterator

from alignment.pyramid import downsample
from alignment.runs import Run, pyramid_levels
from alignment.stages.render import PATH
from alignment.stages.units import Phase, Record, Ref
from storage.grid import Box, tile
from storage.volume import open_array, read, write, write_unit


def phases(run: Run) -> Iterator[Phase]:
    """Yield one phase a level, finest first."""
    for mip in range(1, pyramid_levels(open_array(run.uri, f"{PATH}/0").shape)):
        target = open_array(run.uri, f"{PATH}/{mip}")
        units = list(tile(target.shape, target.shards or target.chunks, mip=mip))
        yield Phase(f"mip{mip}", units, downsample_shard, reads_finer)


def reads_finer(box: Box, *, run_uri: str) -> list[Ref]:
    """Return the shards of the finer level that a shard covers."""
    finer = open_array(run_uri, f"{PATH}/{box.mip - 1}")
    stage, phase = ("render", "shards") if box.mip == 1 else ("pyramid", f"mip{box.mip - 1}")
    shards = tile(finer.shape, write_unit(finer), mip=box.mip - 1)
    return [Ref(stage, phase, shard.label) for shard in shards if shard.overlaps(box.finer())]


def downsample_shard(box: Box, *, run_uri: str) -> Record:
    """Write `box` of one mip from the box of the finer mip that it covers."""
    fine = read(open_array(run_uri, f"{PATH}/{box.mip - 1}"), box.finer())
    coarse = downsample(fine)
    digest = write(open_array(run_uri, f"{PATH}/{box.mip}"), box, coarse)
    return {
        "sha256": digest,
        "bytes_read": int(fine.nbytes),
        "bytes_written": int(coarse.nbytes),
    }
