import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.voronoi import TILE, distance_to, nearest_nodes, scatter_discs


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(3, 60))
def test_the_nearest_nodes_are_those_of_an_exhaustive_search(seed, count):
    random = np.random.default_rng(seed)
    position = random.uniform(-20, 150, (count, 2)).astype(np.float32)
    weight = random.uniform(-5, 30, count).astype(np.float32)
    process = np.sort(random.integers(0, max(count // 2, 3), count)).astype(np.int32)
    y, x = np.indices((4 * TILE, 9 * TILE), np.float32)
    y = y + 5 * np.sin(x / 20)  # bent
    first, second, third = nearest_nodes(y, x, position, weight, process)

    away = np.hypot(y - position[:, 0, None, None], x - position[:, 1, None, None])
    away -= weight[:, None, None]
    owners = np.unique(process)
    of_process = np.stack([away[process == owner].min(axis=0) for owner in owners])
    ranked = np.sort(of_process, axis=0)
    assert np.all(np.take_along_axis(away, first[None].astype(int), 0)[0] <= ranked[0] + 1e-4)
    if len(owners) > 1:
        assert np.all(process[first] != process[second])
        found = np.take_along_axis(away, second[None].astype(int), 0)[0]
        np.testing.assert_allclose(found, ranked[1], atol=1e-4)
    if len(owners) > 2:
        np.testing.assert_allclose(third, np.minimum(ranked[2], 200), atol=1e-4)


def test_distances_have_unit_gradients():
    y, x = np.indices((8, 8), np.float32)
    position, weight = np.array([[20, 5]], np.float32), np.array([3], np.float32)
    node = np.zeros((8, 8), np.int32)
    distance, along_y, along_x = distance_to(node, y, x, position, weight)
    np.testing.assert_allclose(distance, np.hypot(y - 20, x - 5) - 3, atol=2e-3)
    np.testing.assert_allclose(np.hypot(along_y, along_x), 1, atol=1e-3)
    assert along_y.max() < 0


def test_discs_fill_the_rectangle_without_much_overlap():
    centre, radius, process = scatter_discs(np.random.default_rng(0), 600, 500)
    assert np.all(np.diff(process) >= 0)
    assert set(np.diff(process)) <= {0, 1}
    assert 100 < process[-1] < 600
    apart = np.hypot(*(centre[:, None] - centre[None]).transpose(2, 0, 1))
    other = process[:, None] != process[None]
    # A disc lies at least half its radius (less the coarse grid) clear of all others.
    clear = apart - np.maximum(radius[:, None], radius[None])
    assert clear[other].min() > -6
    covered = np.zeros((600, 500), bool)
    y, x = np.indices(covered.shape)
    for (cy, cx), r in zip(centre, radius, strict=True):
        covered |= np.hypot(y - cy, x - cx) < r
    assert covered.mean() > 0.6
