import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.ndimage import gaussian_filter, map_coordinates

from alignment.errors import DataError, ShapeError
from alignment.fields import invert
from alignment.misalignment import Misalignment, MisalignmentConfig, misalign

STILL = {"rotation_deg": 0, "shift_px": 0, "stretch": 0, "elastic_px": 0, "contrast": 0, "noise": 0}


def texture(nz, size, seed=0, sigma=2.0):
    white = np.random.default_rng(seed).normal(size=(nz, size, size))
    smooth = gaussian_filter(white, (0, sigma, sigma))
    return (128 + 30 * smooth / smooth.std()).clip(1, 255).astype(np.uint8)


def test_no_misalignment_only_cuts_a_border_of_what_the_spline_needs():
    images = texture(3, 100)
    sections, truth = misalign(images, MisalignmentConfig(**STILL))
    border = (100 - sections.shape[1]) // 2
    assert 2 <= border <= 4
    np.testing.assert_array_equal(sections, images[:, border:-border, border:-border])
    np.testing.assert_array_equal(truth.to_tissue, border)


def test_the_truth_leads_back_to_the_tissue():
    images = texture(2, 420, sigma=3)
    config = MisalignmentConfig(seed=3, shift_px=10, rotation_deg=2, contrast=0, noise=0)
    sections, truth = misalign(images, config)
    for z in range(2):
        back = invert(truth.to_tissue[z], truth.step_px)
        nodes = np.indices(back.shape[1:]) * truth.step_px
        source = nodes + back
        size = sections.shape[1]
        inside = np.all((source > 3) & (source < size - 4) & (nodes < 400), axis=0)
        seen = map_coordinates(sections[z].astype(float), source[:, inside], order=3)
        there = images[z][nodes[0][inside], nodes[1][inside]]
        assert inside.sum() > 500
        # Grey values: 30 is the texture's standard deviation, 0.5 the rounding.
        assert np.abs(seen - there).mean() < 1


def test_sections_have_no_black_border_and_as_little_cut_off_as_possible():
    images = texture(6, 300)
    sections, truth = misalign(images, MisalignmentConfig(shift_px=15))
    height = sections.shape[1]
    reached = []
    for z in range(6):
        y, x = np.meshgrid(*2 * [np.arange(0, height, 7.0)], indexing="ij")
        tissue = truth.locate(z, np.stack([y, x], -1).reshape(-1, 2))
        reached += [np.nanmin(tissue), 299 - np.nanmax(tissue)]
    # Seven px of sampling, and up to seven to the last node inside.
    assert 1.5 < min(reached) < 14


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_bilinear_nodes_are_within_a_fiftieth_of_a_pixel(seed):
    drawn = Misalignment(
        MisalignmentConfig(seed=seed, fold_section=1, crack_section=2), (4, 700, 650)
    )
    truth = drawn.truth(8)
    rows, columns = np.arange(0, 700, 3), np.arange(0, 650, 3)
    points = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1).reshape(-1, 2).astype(float)
    for z in range(4):
        exact = points + drawn.displacement(z, rows, columns).reshape(2, -1).T
        error = np.hypot(*(truth.locate(z, points) - exact).T)
        assert np.isfinite(error).mean() > 0.85
        assert np.nanmax(error) < 0.02


def test_draws_have_the_spread_that_was_asked_for():
    config = MisalignmentConfig(
        seed=5, rotation_deg=0, shift_px=0, stretch=0, elastic_px=8, elastic_length_px=60
    )
    drawn = Misalignment(config, (30, 500, 500))
    at = np.arange(0, 500, 20)
    elastic = np.stack([drawn.displacement(z, at, at) for z in range(30)])
    assert np.percentile(np.hypot(elastic[:, 0], elastic[:, 1]), 95) == pytest.approx(8, rel=0.08)
    near, far = elastic[..., :-3], elastic[..., 3:]  # 60 px apart
    assert np.corrcoef(near.ravel(), far.ravel())[0, 1] == pytest.approx(np.exp(-0.5), abs=0.05)

    rigid = Misalignment(
        MisalignmentConfig(seed=5, elastic_px=0, stretch=0.015, rotation_deg=3, shift_px=30),
        (300, 101, 101),
    )
    corners = np.stack([rigid.displacement(z, [0, 50, 100], [0, 50, 100]) for z in range(300)])
    assert corners[:, :, 1, 1].std() == pytest.approx(30, rel=0.1)
    gradient = (corners[:, :, 2, 1] - corners[:, :, 0, 1]) / 100  # of the map along y
    assert gradient[:, 0].std() == pytest.approx(0.015, rel=0.2)
    assert np.degrees(gradient[:, 1].std()) == pytest.approx(3, rel=0.15)


@pytest.mark.parametrize(("kind", "hidden"), [("fold_section", 12), ("crack_section", -12)])
def test_a_seam_hides_tissue_or_opens_a_gap(kind, hidden):
    drawn = Misalignment(MisalignmentConfig(**STILL | {kind: 0}), (2, 400, 400))
    at = np.arange(400)
    shown = drawn.shows_tissue(0, at, at)
    moved = drawn.displacement(0, at, at)
    distance = np.hypot(*moved)
    # Both sides shift by half the width, against each other.
    np.testing.assert_allclose(distance[shown], 6)
    directions = np.unique(np.round(moved[:, shown], 6), axis=1)
    assert directions.shape[1] == 2
    np.testing.assert_allclose(directions.sum(axis=1), 0, atol=1e-5)
    # Away from the seam on a fold, towards it on a crack.
    far = np.argmax(np.abs(at - 199.5)[:, None] + np.abs(at - 199.5) * (shown > 0))
    y, x = divmod(int(far), 400)
    outward = (moved[0, y, x] * (y - 199.5) + moved[1, y, x] * (x - 199.5)) > 0
    assert outward == (hidden > 0)
    band = ~shown
    assert 0.02 < band.mean() < 0.08
    assert drawn.shows_tissue(1, at, at).all()
    picture = drawn.expose(0, np.full((400, 400), 128, np.float32))
    assert (picture[band].mean() < 40) if hidden > 0 else (picture[band].mean() > 230)


def test_blank_and_cornered_sections_are_zero_where_they_show_nothing():
    config = MisalignmentConfig(blank_section=0, corner_section=1)
    drawn = Misalignment(config, (3, 200, 200))
    grey = np.full((200, 200), 100, np.float32)
    blank, corner, whole = (drawn.expose(z, grey) for z in range(3))
    truth = drawn.truth(8)
    assert not blank.any()
    assert not truth.tissue[0].any()
    assert corner[0, 0] == 0
    assert corner[-1, -1] > 0
    assert 0.03 < (corner == 0).mean() < 0.06
    shown = np.kron(truth.tissue[1], np.ones((8, 8), bool))[:200, :200]
    assert corner[shown].all()
    assert whole.all()
    # Nodes beyond the last pixel belong to no section.
    assert not truth.tissue[2, -1].any()
    assert truth.tissue[2, :-1, :-1].all()


def test_sections_differ_in_contrast_but_not_in_place_when_only_contrast_jumps():
    images = texture(4, 120)
    sections, _ = misalign(images, MisalignmentConfig(**STILL | {"contrast": 0.1, "noise": 6}))
    plain, _ = misalign(images, MisalignmentConfig(**STILL))
    assert sections.mean(axis=(1, 2)).std() > 3
    for a, b in zip(sections, plain, strict=True):
        assert np.corrcoef(a.ravel(), b.ravel())[0, 1] > 0.95


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 5))
def test_a_section_does_not_depend_on_the_others(seed, z):
    config = MisalignmentConfig(seed=seed)
    at = np.arange(0, 100, 9)
    short = Misalignment(config, (z + 1, 100, 100)).displacement(z, at, at)
    tall = Misalignment(config, (50, 100, 100)).displacement(z, at, at)
    np.testing.assert_array_equal(short, tall)


def test_the_extent_holds_all_that_is_shown():
    drawn = Misalignment(MisalignmentConfig(seed=2, fold_section=1), (3, 300, 260))
    rows, columns = np.arange(300), np.arange(260)
    for z in range(3):
        y, x = drawn.displacement(z, rows, columns)
        y, x = y + rows[:, None], x + columns
        y0, x0, y1, x1 = drawn.extent(z)
        assert y0 <= y.min() < y0 + 2
        assert y1 - 2 <= y.max() <= y1
        assert x0 <= x.min() < x0 + 2
        assert x1 - 2 <= x.max() <= x1


def test_messages_say_what_to_change():
    with pytest.raises(DataError, match=r"blank_section=9 .* 0\.\.2"):
        Misalignment(MisalignmentConfig(blank_section=9), (3, 100, 100))
    with pytest.raises(ValidationError, match="section of its own"):
        MisalignmentConfig(blank_section=3, fold_section=3)
    with pytest.raises(ShapeError, match="uint8"):
        misalign(np.zeros((3, 100, 100)), MisalignmentConfig())
    with pytest.raises(DataError, match="lower shift_px"):
        misalign(texture(3, 100), MisalignmentConfig(shift_px=60))
    with pytest.raises(DataError, match="step_px"):
        Misalignment(MisalignmentConfig(), (3, 100, 100)).truth(0)
