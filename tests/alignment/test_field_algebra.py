"""Composition, inversion and resampling of fields: exact where they can be, bounded elsewhere."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.bilinear import grid_points, undo
from alignment.errors import DataError, ShapeError
from alignment.fields import (
    affine_field,
    affine_then_field,
    apply_affine,
    compose,
    compose_affines,
    evaluate,
    field_then_affine,
    inversion_error,
    invert,
    invert_affine,
    quantise,
    resample,
)
from alignment.jacobians import least_stretch
from tests.alignment.test_fields import bent_field, similar_affine

seeds = st.integers(0, 2**32 - 1)
GRID = (12, 14)
SPACING = 32
SIZE = np.array([11 * SPACING, 13 * SPACING])


def gentle_affine(seed, *, strain=0.1, shift_px=20.0):
    """An affine that moves no point of the grid by more than two cells."""
    random = np.random.default_rng(seed)
    linear = np.eye(2) + random.uniform(-strain, strain, (2, 2))
    return np.column_stack(
        [linear, random.uniform(-shift_px, shift_px, 2) - (linear - np.eye(2)) @ SIZE / 2]
    )


def wave_field(seed, *, px=6.0, length_px=200.0, grid=GRID, spacing=SPACING):
    """A smooth field whose second derivatives are at most px * (2 pi / length_px)^2."""
    random = np.random.default_rng(seed)
    angle, phase = random.uniform(0, 2 * np.pi, (2, 2))
    wave = 2 * np.pi / length_px * np.stack([np.cos(angle), np.sin(angle)])
    values = px * np.sin(grid_points(*grid, spacing) @ wave + phase)
    return values.T.reshape(2, *grid).astype(np.float32)


def inside(*affines):
    """Which nodes (ny, nx) all of these maps leave within the grid."""
    nodes = grid_points(*GRID, SPACING)
    return np.all(
        [((p >= 0) & (p <= SIZE)).all(axis=1) for p in (apply_affine(a, nodes) for a in affines)],
        axis=0,
    ).reshape(GRID)


def assert_equal_at(where, a, b, atol=1e-3):
    assert where.sum() > 10
    np.testing.assert_allclose(a[:, where], b[:, where], atol=atol)


@settings(deadline=None)
@given(seeds, seeds)
def test_composition_of_affines_is_exact(seed, other):
    first, then = gentle_affine(seed), gentle_affine(other)
    composed = compose(*(affine_field(a, GRID, SPACING) for a in (first, then)), SPACING)
    expected = affine_field(compose_affines(first, then), GRID, SPACING)
    assert_equal_at(inside(then), composed, expected)


@settings(deadline=None)
@given(seeds, seeds, st.sampled_from([8, 24, 64, 100]))
def test_composition_takes_fields_of_other_nodes(seed, other, spacing):
    grid = tuple(-(-n // spacing) + 1 for n in SIZE)
    first, then = gentle_affine(seed), gentle_affine(other)
    composed = compose(
        affine_field(first, grid, spacing),
        affine_field(then, GRID, SPACING),
        SPACING,
        first_spacing=spacing,
    )
    assert_equal_at(
        inside(then), composed, affine_field(compose_affines(first, then), GRID, SPACING)
    )


@settings(deadline=None)
@given(seeds, seeds)
def test_a_field_and_an_affine_compose_in_both_orders(seed, other):
    affine, points = similar_affine(seed), np.random.default_rng(seed).uniform(0, 300, (30, 2))
    field = wave_field(other)
    nodes = grid_points(*GRID, SPACING)
    places = nodes + affine_then_field(affine, field, SPACING).reshape(2, -1).T
    expected = apply_affine(affine, nodes + evaluate(field, SPACING, nodes))
    np.testing.assert_allclose(places, expected, atol=1e-3)
    places = nodes + field_then_affine(field, affine, SPACING).reshape(2, -1).T
    there = apply_affine(affine, nodes)
    np.testing.assert_allclose(places, there + evaluate(field, SPACING, there), atol=1e-3)
    alone = affine_then_field(affine, np.zeros_like(field), SPACING)
    np.testing.assert_array_equal(alone, affine_field(affine, GRID, SPACING))
    between = points + evaluate(alone, SPACING, points)
    np.testing.assert_allclose(between, apply_affine(affine, points), atol=1e-3)


@settings(deadline=None)
@given(seeds)
def test_inversion_of_an_affine_is_exact(seed):
    affine = gentle_affine(seed)
    back = invert_affine(affine)
    push = affine_field(affine, GRID, SPACING)
    pull = invert(push, SPACING)
    assert_equal_at(inside(back), pull, affine_field(back, GRID, SPACING))
    corners = inside(back)
    cells = corners[:-1, :-1] & corners[1:, :-1] & corners[:-1, 1:] & corners[1:, 1:]
    inner = np.zeros_like(cells)
    inner[2:-2, 2:-2] = cells[2:-2, 2:-2]
    if inner.any():
        assert inversion_error(push, pull, SPACING)[inner].max() < 1e-3


@settings(deadline=None)
@given(seeds, st.booleans())
def test_an_inverse_is_nowhere_farther_off_than_its_bound(seed, rounded):
    push = bent_field(seed)
    pull = invert(push, SPACING)
    pull = quantise(pull) if rounded else pull
    bound = inversion_error(push, pull, SPACING)
    ny, nx = bound.shape
    points = np.random.default_rng(seed).uniform(0, [ny * SPACING, nx * SPACING], (400, 2))
    cell = (points // SPACING).astype(int)
    found = points + evaluate(pull, SPACING, points)
    off = np.hypot(*(found - undo(push, SPACING, points)).T)
    assert (off <= bound[*cell.T] + 1e-3).all()


def test_the_bound_of_a_smooth_inverse_is_a_fraction_of_a_pixel():
    push = wave_field(3, px=3, length_px=600)
    pull = invert(push, SPACING)
    bound = inversion_error(push, pull, SPACING)[2:-2, 2:-2]
    assert 0.01 < bound.max() < 0.3
    tighter = inversion_error(push, pull, SPACING, samples=16)[2:-2, 2:-2]
    assert (tighter < bound).all()
    assert inversion_error(push, pull + np.float32(2), SPACING).min() > 1.5


def test_an_inverse_on_other_nodes_or_of_a_fold_has_no_bound():
    push = np.zeros((2, 3, 3), np.float32)
    with pytest.raises(ShapeError, match="same nodes"):
        inversion_error(push, push[:, :2], SPACING)
    push[1, :, 1] = 40
    with pytest.raises(DataError, match="fold"):
        inversion_error(push, push, SPACING)


@settings(deadline=None)
@given(seeds)
def test_a_field_after_its_inverse_is_the_identity_within_the_bound(seed):
    push = bent_field(seed)
    pull = invert(push, SPACING)
    np.testing.assert_allclose(compose(push, pull, SPACING), 0, atol=1e-3)
    # The other way round the pull field is read between its nodes.
    stretch = least_stretch(np.pad(push, ((0, 0), (1, 1), (1, 1)), mode="edge"), SPACING)
    bound = inversion_error(push, pull, SPACING).max()
    _, ny, nx = push.shape
    nodes = grid_points(ny, nx, SPACING)
    pushed = nodes + push.reshape(2, -1).T
    there = ((pushed >= 0) & (pushed <= [(ny - 1) * SPACING, (nx - 1) * SPACING])).all(axis=1)
    left = np.hypot(*compose(pull, push, SPACING).reshape(2, -1))[there]
    assert stretch.min() > 0
    assert (left <= bound + 1e-3).all()


@settings(deadline=None)
@given(seeds, seeds, seeds)
def test_composition_is_associative_up_to_interpolation(seed, other, third):
    px, length_px = 6.0, 400.0
    a, b, c = (wave_field(s, px=px, length_px=length_px) for s in (seed, other, third))
    left = compose(compose(a, b, SPACING), c, SPACING)
    right = compose(a, compose(b, c, SPACING), SPACING)
    # Only one order reads `a after b` between nodes, and each field bends at its nodes only. What
    # a bilinear value is off by is at most spacing^2 / 8 times the second derivative along each
    # axis; those of a(x + b(x)) + b(x) are at most `bend`.
    wave = 2 * np.pi / length_px
    strain = 1 + np.sqrt(2) * px * wave
    bend = px * wave**2 * (strain**2 + strain)
    off = np.abs(left - right)[:, 2:-2, 2:-2]
    assert off.max() <= 2 * bend * SPACING**2 / 8
    assert bend * SPACING**2 / 8 < 0.5


@settings(deadline=None)
@given(seeds, st.integers(5, 90), st.integers(0, 3), st.integers(0, 3))
def test_resampling_an_affine_is_exact_at_any_spacing_and_mip(seed, spacing, old, new):
    affine = gentle_affine(seed)  # px of the old mip
    field = affine_field(affine, GRID, SPACING)
    coarse = resample(field, SPACING, spacing, old_mip=old, new_mip=new)
    nodes = grid_points(*coarse.shape[1:], spacing)
    there = (nodes + 0.5) * 2.0 ** (new - old) - 0.5  # the same points in px of the old mip
    moved = nodes + coarse.reshape(2, -1).T
    expected = (apply_affine(affine, there) + 0.5) * 2.0 ** (old - new) - 0.5
    known = ((there >= 0) & (there <= SIZE)).all(axis=1)
    assert known.any()
    np.testing.assert_allclose(moved[known], expected[known], atol=2e-3)
    reach = there.max(axis=0)
    assert (reach >= SIZE - 1e-6).all(), "the new nodes reach the last old one"
    assert (reach - spacing * 2.0 ** (new - old) < SIZE).all(), "and no farther than needed"


@settings(deadline=None)
@given(seeds, st.sampled_from([1, 2, 4, 8]))
def test_finer_nodes_keep_every_value_and_give_the_coarse_ones_back(seed, factor):
    field = bent_field(seed)
    fine = resample(field, SPACING, SPACING / factor)
    points = np.random.default_rng(seed).uniform(-40, 260, (50, 2))
    np.testing.assert_allclose(
        evaluate(fine, SPACING / factor, points), evaluate(field, SPACING, points), atol=1e-4
    )
    np.testing.assert_array_equal(resample(fine, SPACING / factor, SPACING), field)


def test_a_shift_at_a_coarser_mip_is_smaller_and_covers_the_asked_grid():
    field = np.full((2, 3, 3), 8, np.float32)
    np.testing.assert_array_equal(
        resample(field, 32, 16, old_mip=0, new_mip=2, grid_yx=(5, 4)), np.full((2, 5, 4), 2.0)
    )


def test_unknown_nodes_stay_unknown_where_they_count():
    field = np.zeros((2, 3, 3), np.float32)
    field[:, 0, 0] = np.nan
    fine = resample(field, 32, 16)
    assert np.isnan(fine[:, :2, :2]).all()
    assert np.isfinite(fine[:, 3:]).all()
