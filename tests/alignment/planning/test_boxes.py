"""The boxes of a decomposition, summed up, are those that are enumerated."""

from math import prod

import pytest

from alignment.config import RelaxConfig
from alignment.decomposition import decompose
from alignment.planning.boxes import sum_up


@pytest.mark.parametrize("grid", [(40, 190, 70), (131, 33, 200), (9, 300, 41)])
def test_the_sums_are_those_of_all_boxes(grid):
    config = RelaxConfig(slab_sections=16, tile_nodes=64)
    cut = decompose(grid, config, 32, farthest=3, reach_px=96)
    found = sum_up(cut)
    seen = [cut.neighbourhood(box.moved).shape for box in cut.boxes]
    gathered = [cut.coarse(cut.neighbourhood(box.core)).shape for box in cut.boxes]
    assert len(cut.boxes) > 2
    assert found.count == len(cut.boxes)
    assert found.all_moved == sum(prod(box.moved.shape) for box in cut.boxes)
    assert found.all_seen == sum(map(prod, seen))
    for name, shapes in (
        ("seen", seen),
        ("gathered", gathered),
        ("core", [box.core.shape for box in cut.boxes]),
        ("moved", [box.moved.shape for box in cut.boxes]),
    ):
        assert getattr(found, name) == tuple(map(max, zip(*shapes, strict=True))), name
