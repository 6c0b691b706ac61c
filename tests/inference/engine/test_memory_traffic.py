"""What kernels read in turn: tiles enough for their weights, blocks on lines of their own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from inference.engine import reference
from inference.engine.choices import Work, candidates, cost
from inference.engine.engine import Engine, Settings
from inference.engine.graph import Graph, Node
from inference.engine.layout import own_place
from inference.engine.ops import Conv, Input, Pool, TransposedConv
from inference.native.structures import Kind

RNG = np.random.default_rng(5)
PX_3 = ((0, 0), (1, 1), (1, 1))


def _work(channels, size, taps_z=1):
    sides, lanes = (taps_z, 3, 3), 8
    return Work(channels, channels, sides, (1, 1, 1), size, lanes, False, False, "relu")


def test_many_weights_are_read_for_many_tiles_and_few_for_few():
    work = _work(512, (1, 64, 64))
    wide = candidates(work)[0]
    assert wide.kernel == "winograd"
    assert wide.tiles >= 32
    few = replace(wide, tiles=wide.pixels)
    assert cost(work, few) > 1.2 * cost(work, wide)  # 128 to 68 ms, where it was measured
    narrow = candidates(_work(28, (18, 192, 192), taps_z=3))[0]
    assert narrow.slices == 2
    assert narrow.tiles <= 12  # their sums along z stay near


@pytest.mark.parametrize("threads", [1, 2, 3, 5])
def test_threads_have_as_many_tiles_each(threads):
    kernel = RNG.normal(size=(1, 3, 3, 24, 8)).astype(np.float32)
    nodes = (
        Node("given", Input((24, 1, 90, 70))),
        Node("made", Conv(kernel, np.zeros(8, np.float32), padding=PX_3), ("given",)),
        Node("pooled", Pool("max", (1, 2, 2), (1, 2, 2)), ("made",)),
    )
    graph = Graph(nodes, ("pooled",))
    engine = Engine(graph, Settings(tuning=False, threads=threads))
    (op,) = [op for op in engine.program.ops if op.kind == Kind.WINOGRAD]
    tiles = -(-90 // op.tile) * -(-70 // op.tile)
    pieces = -(-tiles // op.tiles)
    turns = -(-pieces // threads)
    assert tiles / (turns * threads) > op.tiles - op.pixels  # but for whole blocks of registers

    x = RNG.normal(size=(1, 1, 90, 70, 24)).astype(np.float32)
    expected = reference.run(graph, x[0])[0]
    np.testing.assert_allclose(engine(x)[0], expected, atol=1e-4)


def test_blocks_of_channels_are_never_whole_pages_apart():
    for side in (16, 32, 33, 64, 128):
        buffer = own_place("a", (64, 1, side, side), lanes=8).buffer
        assert buffer.block % 1024
        assert buffer.block % buffer.lanes == 0
        assert buffer.floats == buffer.blocks * buffer.block


@pytest.mark.parametrize("threads", [1, 3])
def test_rows_of_wide_images_are_computed_group_by_group(threads):
    """So many channels that a part is one row, and sizes that are whole pages."""
    kernel = RNG.normal(size=(1, 2, 2, 520, 40)).astype(np.float32)
    margins = ((0, 0), (0, 0), (0, 0))
    op = TransposedConv(kernel, RNG.normal(size=40).astype(np.float32), (1, 2, 2), margins)
    graph = Graph(
        (Node("given", Input((520, 1, 16, 128))), Node("made", op, ("given",))), ("made",)
    )
    x = RNG.normal(size=(1, 1, 16, 128, 520)).astype(np.float32)
    expected = reference.run(graph, x[0])[0]
    found = Engine(graph, Settings(threads=threads))(x)[0]
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
