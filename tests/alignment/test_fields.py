import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.errors import DataError, ShapeError
from alignment.fields import (
    affine_to_mip,
    apply_affine,
    check_field,
    compose,
    compose_affines,
    dense,
    evaluate,
    flipped_cells,
    invert,
    invert_affine,
    jacobian,
    map_to_aligned,
    map_to_source,
    node_grid,
    quantise,
)

seeds = st.integers(0, 2**32 - 1)


def bent_field(seed, *, spacing=32, least=0.03):
    """A strongly bent field of 2..7 x 2..7 nodes that does not fold."""
    random = np.random.default_rng(seed)
    ny, nx = random.integers(2, 8, 2)
    field = random.normal(scale=random.uniform(1, spacing), size=(2, ny, nx)).astype(np.float32)
    while flipped_cells(field, spacing, least=least).any():
        field *= np.float32(0.9)
    return field


def linear_field(matrix, ny, nx, spacing):
    nodes = np.indices((ny, nx), float).reshape(2, -1) * spacing
    return (np.asarray(matrix) @ nodes).reshape(2, ny, nx).astype(np.float32)


def similar_affine(seed):
    random = np.random.default_rng(seed)
    linear = np.eye(2) + random.uniform(-0.3, 0.3, (2, 2))
    return np.column_stack([linear, random.uniform(-500, 500, 2)])


def test_a_field_in_another_order_is_refused_with_a_way_out():
    with pytest.raises(ShapeError, match=r"\(2, ny, nx\).*field\[::-1\]"):
        check_field(np.zeros((4, 5, 2), np.float32))


@settings(deadline=None)
@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(1, 256))
def test_nodes_reach_the_last_pixel_and_no_further_than_needed(height, width, spacing):
    for n, nodes in zip((height, width), node_grid((height, width), spacing), strict=True):
        assert (nodes - 2) * spacing < n - 1 <= (nodes - 1) * spacing


def test_quantised_fields_are_multiples_of_a_32nd_and_keep_nan():
    field = np.array([0.02, -0.01, 3.99, np.nan], np.float32).reshape(2, 1, 2)
    rounded = quantise(field).ravel()
    np.testing.assert_array_equal(rounded, np.float32([0.03125, 0, 4, np.nan]))
    assert not np.signbit(rounded[1]), "-0 would have another digest than 0"


def test_evaluation_reproduces_linear_fields_and_is_constant_outside():
    field = linear_field([[0.1, -0.2], [0.05, 0.3]], 4, 5, 10)
    points = np.array([[0, 0], [7.25, 33.1], [30, 40], [-50, 12], [31, 1000]])
    inside = np.clip(points, 0, [30, 40])
    expected = inside @ np.array([[0.1, -0.2], [0.05, 0.3]]).T
    np.testing.assert_allclose(evaluate(field, 10, points), expected, atol=1e-5)


def test_unknown_nodes_and_unknown_points_give_unknown_values():
    field = np.zeros((2, 3, 3), np.float32)
    field[:, 0, 0] = np.nan
    values = evaluate(field, 8, np.array([[4.0, 4.0], [12.0, 12.0], [np.nan, 1.0]]))
    np.testing.assert_array_equal(np.isnan(values[:, 0]), [True, False, True])


@settings(deadline=None)
@given(seeds, st.integers(1, 40), st.data())
def test_dense_fields_do_not_depend_on_the_box(seed, spacing, data):
    field = bent_field(seed, spacing=32)
    start, shape = (-5, -17), (spacing * 7 + 11, spacing * 5 + 30)
    whole = dense(field, spacing, start, shape)
    y0 = data.draw(st.integers(0, shape[0] - 1))
    x0 = data.draw(st.integers(0, shape[1] - 1))
    y1 = data.draw(st.integers(y0 + 1, shape[0]))
    x1 = data.draw(st.integers(x0 + 1, shape[1]))
    part = dense(field, spacing, (start[0] + y0, start[1] + x0), (y1 - y0, x1 - x0))
    assert part.dtype == np.float32
    np.testing.assert_array_equal(part, whole[:, y0:y1, x0:x1])


@settings(deadline=None)
@given(seeds)
def test_dense_fields_agree_with_evaluation(seed):
    field = bent_field(seed)
    y, x = np.mgrid[-9:200:7, -40:230:11]
    pixels = dense(field, 32, (-9, -40), (209, 270))[:, ::7, ::11].reshape(2, -1).T
    points = np.stack([y.ravel(), x.ravel()], axis=1).astype(float)
    np.testing.assert_allclose(pixels, evaluate(field, 32, points), atol=1e-4)


@settings(deadline=None)
@given(seeds)
def test_an_inverted_field_undoes_it_at_the_nodes(seed):
    push = bent_field(seed)
    pull = invert(push, 32)
    _, ny, nx = push.shape
    nodes = np.indices((ny, nx), float).reshape(2, -1).T * 32
    coarse = nodes + pull.reshape(2, -1).T
    np.testing.assert_allclose(coarse + evaluate(push, 32, coarse), nodes, atol=0.001)


def test_a_folded_field_is_refused_with_the_setting_to_change():
    push = np.zeros((2, 3, 3), np.float32)
    push[1, :, 1] = 40  # the middle column passes the last one
    with pytest.raises(DataError, match=r"raise relax\.stiffness"):
        invert(push, 32)


def test_an_unknown_node_cannot_be_inverted():
    with pytest.raises(DataError, match="fill its unknown nodes"):
        invert(np.full((2, 2, 2), np.nan, np.float32), 32)


def test_composition_of_shifts_adds_them():
    first, then = (np.full((2, 3, 4), v, np.float32) for v in (3, -1.5))
    np.testing.assert_array_equal(compose(first, then, 16), np.full((2, 3, 4), 1.5))


def test_composition_applies_the_second_field_first():
    first = linear_field([[0, 0.1], [0, 0]], 3, 3, 10)
    then = np.zeros((2, 3, 3), np.float32)
    then[1] = 5  # two[a] = one[a + (0, 5)] = raw[a + (0, 5) + first(a + (0, 5))]
    at_node = compose(first, then, 10)[:, 1, 1]
    np.testing.assert_allclose(at_node, [0.1 * 15, 5], atol=1e-6)


def test_the_jacobian_of_a_linear_field_is_its_determinant():
    matrix = np.array([[0.1, -0.2], [0.05, 0.3]])
    expected = np.linalg.det(np.eye(2) + matrix)
    np.testing.assert_allclose(jacobian(linear_field(matrix, 4, 5, 7), 7), expected, rtol=1e-5)


@settings(deadline=None)
@given(seeds)
def test_no_point_of_a_cell_has_a_smaller_determinant_than_reported(seed):
    field = np.random.default_rng(seed).normal(scale=8, size=(2, 2, 2)).astype(np.float32)
    step = 1e-3
    points = np.random.default_rng(seed).uniform(step, 32 - step, (50, 2))
    dy, dx = (
        (evaluate(field, 32, points + d) - evaluate(field, 32, points - d)) / (2 * step)
        for d in ([step, 0], [0, step])
    )
    sampled = (1 + dy[:, 0]) * (1 + dx[:, 1]) - dy[:, 1] * dx[:, 0]
    assert sampled.min() >= jacobian(field, 32).item() - 1e-4


def test_only_the_cells_that_flip_are_named():
    push = np.zeros((2, 5, 5), np.float32)
    push[1, 2, 2] = 40
    flipped = flipped_cells(push, 32)
    np.testing.assert_array_equal(np.argwhere(flipped), [[1, 2], [2, 2]])


def test_cells_at_the_edge_answer_for_the_plane_outside():
    turned = np.array([[-0.5, -(0.75**0.5)], [0.75**0.5, -0.5]])  # by 120 degrees
    field = linear_field(turned - np.eye(2), 4, 4, 32)
    assert (jacobian(field, 32) > 0).all(), "no cell flips in itself"
    flipped = flipped_cells(field, 32)
    # Beyond an edge the displacement is constant across it, and the tissue runs backwards along it.
    np.testing.assert_array_equal(flipped, [[1, 1, 1], [1, 0, 1], [1, 1, 1]])


@settings(deadline=None)
@given(seeds, st.integers(0, 6))
def test_an_affine_at_another_mip_moves_the_same_tissue(seed, mip):
    affine = similar_affine(seed)
    fine = np.random.default_rng(seed).uniform(0, 4000, (20, 2))
    coarse = (fine + 0.5) / 2**mip - 0.5
    expected = (apply_affine(affine, fine) + 0.5) / 2**mip - 0.5
    np.testing.assert_allclose(apply_affine(affine_to_mip(affine, mip), coarse), expected)


@settings(deadline=None)
@given(seeds)
def test_an_affine_after_its_inverse_is_the_identity(seed):
    affine = similar_affine(seed)
    identity = compose_affines(affine, invert_affine(affine))
    np.testing.assert_allclose(identity, np.eye(2, 3), atol=1e-9)


def test_a_singular_affine_and_a_wrong_shape_are_refused():
    with pytest.raises(DataError, match="no inverse"):
        invert_affine(np.array([[1.0, 2, 0], [2, 4, 0]]))
    with pytest.raises(ShapeError, match=r"\(2, 3\)"):
        apply_affine(np.eye(3), np.zeros((1, 2)))
    with pytest.raises(ShapeError, match=r"\(n, 2\)"):
        apply_affine(np.eye(2, 3), np.zeros(2))


@settings(deadline=None)
@given(seeds)
def test_points_map_both_ways(seed):
    field, coarse = quantise(bent_field(seed)), similar_affine(seed)
    points = np.random.default_rng(seed).uniform(-60, 260, (200, 2))
    source = map_to_source(coarse, field, 32, points)
    np.testing.assert_allclose(map_to_aligned(coarse, field, 32, source), points, atol=0.05)
    again = map_to_source(coarse, field, 32, map_to_aligned(coarse, field, 32, source))
    np.testing.assert_allclose(again, source, atol=0.001)


def test_a_point_is_mapped_by_the_field_first_and_the_affine_second():
    coarse = np.array([[0.0, 2, 100], [1, 0, 0]])
    field = np.stack([np.full((2, 2), 3.0), np.full((2, 2), -1.0)]).astype(np.float32)
    source = map_to_source(coarse, field, 64, np.array([[10.0, 20.0]]))
    np.testing.assert_allclose(source, [[2 * 19 + 100, 13]])


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_a_fields_values_do_not_depend_on_the_other_points(seed):
    field = bent_field(seed)
    points = np.random.default_rng(seed).uniform(0, 200, (37, 2))
    whole = map_to_source(similar_affine(seed), field, 32, points)
    single = map_to_source(similar_affine(seed), field, 32, points[5:6])
    np.testing.assert_array_equal(single, whole[5:6])
