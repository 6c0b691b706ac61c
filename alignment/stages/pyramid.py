"""Stage "pyramid": the levels that rendering left, mip k + 1 of the aligned volume from mip k."""

from __future__ import annotations

from collections.abc import Iterator

from alignment.pyramid import downsample
from alignment.runs import Run, load, pyramid_levels
from alignment.stages.render import PATH, layout_fact, own_levels
from alignment.stages.units import Phase, Record, Ref
from storage.grid import Box, tile
from storage.volume import open_array, read, write, write_unit


def phases(run: Run) -> Iterator[Phase]:
    """Yield one phase a level, finest first; none where the shards made all levels themselves."""
    shape = open_array(run.uri, f"{PATH}/0").shape
    for mip in range(own_levels(run, shape) + 1, pyramid_levels(shape)):
        target = open_array(run.uri, f"{PATH}/{mip}")
        units = list(tile(target.shape, target.shards or target.chunks, mip=mip))
        yield Phase(f"mip{mip}", units, downsample_shard, reads_finer, local=True)


def reads_finer(box: Box, *, run_uri: str) -> list[Ref | str]:
    """Return the shards of the finer level that a shard covers."""
    run = load(run_uri)
    finer = open_array(run_uri, f"{PATH}/{box.mip - 1}")
    shards = tile(finer.shape, write_unit(finer), mip=box.mip - 1)
    seen = [shard for shard in shards if shard.overlaps(box.finer())]
    finest = open_array(run_uri, f"{PATH}/0")
    if box.mip - 1 > own_levels(run, finest.shape):
        below = f"mip{box.mip - 1}"
        return [layout_fact(run), *(Ref("pyramid", below, shard.label) for shard in seen)]
    # Drawn with a shard of mip 0, under its name.
    level = f"{PATH}/{box.mip - 1}/"
    for _ in range(box.mip - 1):
        seen = [shard.finer() for shard in seen]
    return [layout_fact(run), *(Ref("render", "shards", shard.label, level) for shard in seen)]


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
