import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignment.errors import ConfigError, DataError, ShapeError
from alignment.fields import map_to_source, quantise
from alignment.render import source_bounds, warp, warp_affine

INTERPOLATIONS = ("nearest", "linear", "cubic", "lanczos")
IDENTITY = np.eye(2, 3)
SPACING = 32

seeds = st.integers(0, 2**32 - 1)
interpolations = st.sampled_from(INTERPOLATIONS)


def still(ny=4, nx=4):
    return np.zeros((2, ny, nx), np.float32)


def bent(random, ny=5, nx=6, px=6.0):
    return quantise(random.normal(scale=px, size=(2, ny, nx)).astype(np.float32))


def turned(random):
    angle, scale = random.uniform(-0.6, 0.6), random.uniform(0.8, 1.25)
    linear = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([linear, random.uniform(-30, 30, 2)])


def noise(random, shape):
    """Tissue at the finest scale, without black."""
    return random.integers(1, 256, shape).astype(np.uint8)


def texture(random, shape):
    """Tissue with black areas, thin and thick, with specks, and with the smallest holes."""
    image = noise(random, shape)
    image[: random.integers(0, 20)] = 0
    y, x = random.integers(20, min(shape) - 20, 2)
    image[y : y + random.integers(1, 12), x : x + random.integers(1, 40)] = 0
    image[random.random(shape) < 0.01] = 0
    for y, x in random.integers(0, min(shape) - 5, (min(shape) // 2, 2)):
        image[y : y + 4, x : x + random.integers(3, 6)] = 0
    return image


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_nothing_moves_without_displacement(interpolation):
    source = noise(np.random.default_rng(0), (70, 90))
    shown = warp(source, (0, 0), IDENTITY, still(), SPACING, (0, 0), (70, 90), interpolation)
    np.testing.assert_array_equal(shown, source)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_fields_and_affines_pull_whole_pixels_exactly(interpolation):
    source = noise(np.random.default_rng(0), (70, 90))
    field = np.stack([np.full((4, 4), 3.0), np.full((4, 4), -2.0)]).astype(np.float32)
    coarse = np.array([[0.0, 1, 10], [1, 0, 20]])  # swaps the axes, then shifts
    shown = warp(source, (0, 0), coarse, field, SPACING, (5, 4), (30, 40), interpolation)
    # Aligned (5, 4) lies at coarse (8, 2), which is source (2 + 10, 8 + 20).
    np.testing.assert_array_equal(shown, source[12:52, 28:58].T)


@pytest.mark.parametrize("interpolation", ["linear", "cubic", "lanczos"])
def test_a_ramp_is_sampled_where_points_map_to(interpolation):
    random = np.random.default_rng(1)
    y, x = np.indices((400, 400))
    source = np.clip(0.3 * y + 0.25 * x + 20, 1, 255).astype(np.float32)
    coarse, field = turned(random), bent(random)
    coarse[:, 2] += 100
    shown = warp(
        np.rint(source).astype(np.uint8),
        (0, 0),
        coarse,
        field,
        SPACING,
        (0, 0),
        (90, 110),
        interpolation,
    )
    nodes = np.indices((90, 110), float).reshape(2, -1).T
    at = map_to_source(coarse, field, SPACING, nodes)
    expected = (0.3 * at[:, 0] + 0.25 * at[:, 1] + 20).reshape(90, 110)
    assert np.abs(shown - expected).max() < 1.2, "rounding of the ramp and of the result"


@settings(max_examples=60, deadline=None)
@given(seeds, interpolations, st.data())
def test_pixels_do_not_depend_on_the_box_or_on_the_crop(seed, interpolation, data):
    random = np.random.default_rng(seed)
    source = texture(random, (230, 251))
    coarse, field = turned(random), bent(random)
    shape = (int(random.integers(90, 330)), int(random.integers(90, 330)))
    where = (coarse, field, SPACING)
    whole = warp(source, (0, 0), *where, (-20, -10), shape, interpolation)
    y0, x0 = (data.draw(st.integers(0, n - 1)) for n in shape)
    y1 = data.draw(st.integers(y0 + 1, shape[0]))
    x1 = data.draw(st.integers(x0 + 1, shape[1]))
    start, part = (y0 - 20, x0 - 10), (y1 - y0, x1 - x0)
    top, left, bottom, right = np.maximum(source_bounds(*where, start, part), 0)
    crop = source[top:bottom, left:right]
    shown = warp(crop, (top, left), *where, start, part, interpolation)
    np.testing.assert_array_equal(shown, whole[y0:y1, x0:x1])


@settings(max_examples=60, deadline=None)
@given(seeds, interpolations, st.sampled_from([np.uint8, np.float32]), st.data())
def test_affine_warps_do_not_depend_on_the_box(seed, interpolation, dtype, data):
    random = np.random.default_rng(seed)
    image = texture(random, (130, 151))
    if dtype == np.float32:
        image = random.normal(size=image.shape).astype(np.float32)
    coarse = turned(random)
    shape = (int(random.integers(40, 300)), int(random.integers(40, 300)))
    whole = warp_affine(image, (0, 0), coarse, (-20, -10), shape, interpolation)
    assert whole.dtype == dtype
    y0, x0 = (data.draw(st.integers(0, n - 1)) for n in shape)
    y1 = data.draw(st.integers(y0 + 1, shape[0]))
    x1 = data.draw(st.integers(x0 + 1, shape[1]))
    part = warp_affine(image, (0, 0), coarse, (y0 - 20, x0 - 10), (y1 - y0, x1 - x0), interpolation)
    np.testing.assert_array_equal(part, whole[y0:y1, x0:x1])


def test_the_result_does_not_depend_on_the_number_of_threads():
    random = np.random.default_rng(5)
    source, coarse, field = texture(random, (700, 700)), turned(random), bent(random, 20, 20)
    threads = cv2.getNumThreads()
    try:
        shown = []
        for n in (1, 4):
            cv2.setNumThreads(n)
            shown.append(
                warp(source, (0, 0), coarse, field, SPACING, (0, 0), (600, 600), "lanczos")
            )
    finally:
        cv2.setNumThreads(threads)
    np.testing.assert_array_equal(*shown)


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_borders_to_no_data_neither_darken_nor_ring(interpolation):
    source = np.zeros((300, 300), np.uint8)
    source[60:240, 50:200] = 100
    source[120:140, 90:120] = 0  # a hole
    coarse = turned(np.random.default_rng(2))
    shown = warp(
        source, (0, 0), coarse, still(10, 10), SPACING, (-50, -50), (400, 400), interpolation
    )
    assert set(np.unique(shown)) == {0, 100}
    area = np.count_nonzero(shown) * np.linalg.det(coarse[:, :2])
    assert area == pytest.approx(np.count_nonzero(source), rel=0.01), "nor does tissue shrink"


def test_a_pixel_at_the_border_is_tissue_if_half_of_it_is_known():
    source = np.full((40, 60), 50, np.uint8)
    source[:, :20] = 0
    for shift, first in ((0.375, 20), (0.5, 19), (0.625, 19)):
        coarse = np.array([[1, 0, 0], [0, 1, shift]])
        shown = warp(source, (0, 0), coarse, still(), SPACING, (10, 0), (8, 50), "lanczos")
        np.testing.assert_array_equal(shown, np.tile(50 * (np.arange(50) >= first), (8, 1)))


def test_small_black_specks_are_dark_tissue_and_larger_ones_no_data():
    source = np.full((64, 64), 200, np.uint8)
    source[20:23, 20:23] = 0
    source[40:44, 40:44] = 0
    shown = warp(source, (0, 0), IDENTITY, still(), SPACING, (0, 0), (64, 64), "lanczos")
    assert (shown[20:23, 20:23] == 1).all()
    assert (shown[40:44, 40:44] == 0).all()
    assert np.count_nonzero(shown == 0) == 16


@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
def test_tissue_is_never_shown_as_no_data(interpolation):
    source = np.full((64, 64), 255, np.uint8)
    source[:, ::8] = 1  # a sharp kernel undershoots 0 beside these
    source[:, 1::8] = 1
    shift = np.array([[1, 0, 0.4], [0, 1, 0.4]])
    shown = warp(source, (0, 0), shift, still(), SPACING, (8, 8), (48, 48), interpolation)
    assert shown.min() >= 1


@settings(max_examples=30, deadline=None)
@given(seeds, interpolations)
def test_pixels_outside_the_bounds_are_not_needed(seed, interpolation):
    random = np.random.default_rng(seed)
    source = texture(random, (300, 300))
    where = (turned(random), bent(random), SPACING, (17, 40), (50, 61))
    y0, x0, y1, x1 = np.maximum(source_bounds(*where), 0)
    other = texture(random, (300, 300))
    other[y0:y1, x0:x1] = source[y0:y1, x0:x1]
    np.testing.assert_array_equal(
        warp(other, (0, 0), *where, interpolation), warp(source, (0, 0), *where, interpolation)
    )


def test_a_speck_just_inside_the_bounds_is_no_hole():
    coarse = np.array([[1, 0, 20.484375], [0, 1, 20.515625]])  # rounds to one half, both ways
    box = ((0, 0), (1, 1))
    y0, x0, y1, x1 = source_bounds(coarse, still(), SPACING, *box)
    for y, x in np.ndindex(32, 32):
        source = noise(np.random.default_rng(0), (48, 48))
        source[y + 5 : y + 8, x + 5 : x + 9] = 0  # cut off, it would join the outside
        whole = warp(source, (0, 0), coarse, still(), SPACING, (-15, -15), (30, 30), "lanczos")
        crop = source[y0:y1, x0:x1]
        shown = warp(crop, (y0, x0), coarse, still(), SPACING, *box, "lanczos")
        assert shown == whole[15, 15]


def test_bounds_hold_the_extremes_inside_the_box_and_are_not_clipped():
    field = still(5, 5)
    field[0, 2, 2] = -30  # pulls from above, between the corners of the box
    bounds = source_bounds(IDENTITY, field, SPACING, (10, 10), (100, 100), margin_px=0)
    assert bounds == (10, 10, 110, 110), "64 - 30 lies inside"
    field[0, 1, 2] = -60
    y0, x0, y1, x1 = source_bounds(IDENTITY, field, SPACING, (10, 10), (100, 100), margin_px=2)
    assert (y0, x0, y1, x1) == (-30, 8, 112, 112)


def test_positions_far_from_the_origin_lose_nothing():
    random = np.random.default_rng(3)
    source, field = texture(random, (200, 200)), bent(random)
    coarse = turned(random)
    near = warp(source, (0, 0), coarse, field, SPACING, (0, 0), (100, 100), "lanczos")
    coarse[:, 2] += 150_000
    far = warp(source, (150_000, 150_000), coarse, field, SPACING, (0, 0), (100, 100), "lanczos")
    np.testing.assert_array_equal(far, near)


def test_a_box_beyond_the_section_is_empty():
    source = np.full((50, 50), 9, np.uint8)
    for start in ((-10_000, 0), (60, 60), (0, 40_000_000)):
        shown = warp(source, (0, 0), IDENTITY, still(), SPACING, start, (30, 20), "lanczos")
        np.testing.assert_array_equal(shown, np.zeros((30, 20)))
    shown = warp(source, (0, 0), IDENTITY, still(), SPACING, (0, 0), (0, 20), "lanczos")
    assert shown.shape == (0, 20)


def test_views_of_larger_arrays_are_drawn_as_their_copies():
    random = np.random.default_rng(6)
    large, coarse = noise(random, (300, 600)), turned(random)
    box = (coarse, still(), SPACING, (0, 0), (90, 90))
    for view in (large[20:270, 30:290], large[:250, ::2], large[::-1, 300:], large.T[:290, :280]):
        shown = warp(view, (0, 0), *box, "lanczos")
        np.testing.assert_array_equal(shown, warp(view.copy(), (0, 0), *box, "lanczos"))
    flat = np.broadcast_to(noise(random, (1, 260)), (250, 260))
    shown = warp(flat, (0, 0), *box, "cubic")
    np.testing.assert_array_equal(shown, warp(flat.copy(), (0, 0), *box, "cubic"))


def test_an_affine_warp_is_a_warp_without_displacement():
    random = np.random.default_rng(4)
    source, coarse = texture(random, (120, 130)), turned(random)
    box = ((3, -5), (100, 90))
    np.testing.assert_array_equal(
        warp_affine(source, (0, 0), coarse, *box, "cubic"),
        warp(source, (0, 0), coarse, still(), SPACING, *box, "cubic"),
    )


def test_float_images_are_interpolated_as_they_are():
    y, x = np.indices((60, 60))
    image = (0.5 * y - x).astype(np.float32)
    shift = np.array([[1, 0, 0.25], [0, 1, 0.5]])
    shown = warp_affine(image, (0, 0), shift, (10, 10), (20, 20), "linear")
    np.testing.assert_allclose(shown, image[10:30, 10:30] + 0.125 - 0.5, atol=1e-4)


def test_faults_name_what_came_and_what_is_allowed():
    source, unknown = np.ones((9, 9), np.uint8), np.full((2, 4, 4), np.nan, np.float32)
    box = ((0, 0), (5, 5))
    with pytest.raises(DataError, match="not finite"):
        warp(source, (0, 0), IDENTITY, unknown, SPACING, *box, "linear")
    with pytest.raises(DataError, match="not finite"):
        source_bounds(IDENTITY, unknown, SPACING, *box)
    with pytest.raises(ShapeError, match="uint8"):
        warp(source.astype(np.uint16), (0, 0), IDENTITY, still(), SPACING, *box, "linear")
    with pytest.raises(ShapeError, match="half floats to float32"):
        warp_affine(source.astype(np.float16), (0, 0), IDENTITY, *box, "linear")
    with pytest.raises(ConfigError, match=r"render\.interpolation"):
        warp(source, (0, 0), IDENTITY, still(), SPACING, *box, "best")
    wide, scattered = np.ones((1, 60_000), np.uint8), np.diag([1.0, 200.0]) @ np.eye(2, 3)
    with pytest.raises(DataError, match="coarse affine or its field is wrong"):
        warp(wide, (0, 0), scattered, still(), SPACING, (0, 0), (1, 256), "linear")
