import numpy as np
import pytest

from alignment.config import RelaxConfig
from alignment.relax import relax_stack
from tests.known_fields import KnownFields, inner_points, neighbour_errors


@pytest.mark.parametrize(("sections", "side_px"), [(24, 1024), (60, 1024)])
def test_relax_stack(benchmark, sections, side_px):
    """Nodes and matches every 32 px; 64 sections of 4096 x 4096 px have 1.1 million nodes."""
    truth = KnownFields(sections, px=8, length_px=150, waves=16)
    pairs = [pair for d in (1, 2) for pair in truth.matches(side_px, 32, d=d)]
    config = RelaxConfig(node_spacing_px=32, stiffness=2.0, huber_px=3.0, anchor=0.01)
    result = benchmark.pedantic(
        relax_stack, (pairs, sections, (side_px, side_px), 32, config), rounds=3
    )
    errors = neighbour_errors(truth.misplaced(result.field, 32, inner_points(side_px)))
    assert np.median(errors) < 1.0
