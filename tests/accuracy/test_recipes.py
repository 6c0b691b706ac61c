from dataclasses import replace

import numpy as np
import pytest

from tests.accuracy.recipes import RECIPES, Recipe, SectionMap, draw_maps

SHAPE, BORDER = (160, 176), 80
CALM = Recipe(
    rotation_deg=0, stretch=0, shift_px=0, elastic_px=0, gain=0, bias=0, noise=0, folds=0,
    cracks=0, blanks=0,
)  # fmt: skip


def section(recipe=RECIPES["std"], defect=None, seed=3):
    return SectionMap(recipe, SHAPE, BORDER, [seed, 0], defect)


def points(step=7):
    y, x = np.mgrid[0 : SHAPE[0] : step, 0 : SHAPE[1] : step].astype(float)
    return np.stack([y.ravel(), x.ravel()], axis=1)


def base(seed=0):
    return np.random.default_rng(seed).uniform(60, 200, [n + 2 * BORDER for n in SHAPE])


@pytest.mark.parametrize("recipe", list(RECIPES))
@pytest.mark.parametrize("defect", [None, "fold", "crack", "resin", "no data"])
def test_the_map_and_its_inverse_return_to_where_they_began(recipe, defect):
    drawn = section(RECIPES[recipe], defect)
    at = points()
    at = at[drawn.defect_distance(at) > 0.5]  # inside a crack one tissue has many places
    np.testing.assert_allclose(drawn.place_of(drawn.tissue_at(at)), at, atol=1e-3)


def test_without_misalignment_a_section_shows_its_base_image():
    image = np.rint(base())
    shown = section(CALM).expose(image)
    np.testing.assert_array_equal(shown, image[BORDER:-BORDER, BORDER:-BORDER].astype(np.uint8))


def test_a_fold_hides_tissue_and_a_crack_only_parts_it():
    for defect, hidden_px in (("fold", CALM.defect_px), ("crack", -CALM.defect_px)):
        drawn = section(CALM, defect)
        across = points(1)
        distance = drawn._seam_distance(across)
        here, there = (across[np.abs(distance - d).argmin()] for d in (-30, 30))
        apart = drawn.tissue_at(np.stack([here, there]))
        normal = drawn._normal()
        jump = (apart[1] - apart[0] - (there - here)) @ normal
        assert jump == pytest.approx(hidden_px, abs=0.01)


def test_tissue_under_a_fold_is_not_shown_anywhere():
    drawn = section(CALM, "fold")
    tissue = drawn.tissue_at(points(1))
    places = drawn.place_of(tissue)
    under = np.abs(drawn._seam_distance(places)) < CALM.defect_px / 2
    assert under.sum() > 500
    assert not drawn.shows_tissue(places[under]).any()
    grey = drawn.expose(np.full([n + 2 * BORDER for n in SHAPE], 150.0))
    y, x = np.rint(places[under]).astype(int).T
    inside = (y >= 0) & (y < SHAPE[0]) & (x >= 0) & (x < SHAPE[1])
    assert np.median(grey[y[inside], x[inside]]) < 50


def test_a_blank_region_shows_no_data_or_flat_resin():
    for defect, grey, std in (("no data", 0, 0), ("resin", 205, 6)):
        drawn = section(replace(CALM, noise=6), defect)
        at = points(1)
        blank = drawn.defect_distance(at) < 0
        shown = drawn.expose(base())[tuple(at[blank].astype(int).T)].astype(float)
        assert blank.sum() > 200
        assert shown.mean() == pytest.approx(grey, abs=1)
        assert shown.std() == pytest.approx(std, abs=1)


def test_elastic_displacements_have_the_length_that_the_recipe_says():
    recipe = replace(CALM, elastic_px=10.0, elastic_length_px=20.0)
    drawn = section(recipe)
    at = points(3)
    moved = np.hypot(*(drawn.tissue_at(at) - at - BORDER).T)
    assert np.percentile(moved, 95) == pytest.approx(10, rel=0.15)


def test_a_seed_gives_the_same_stack_and_another_one_another():
    def drawn(seed):
        maps = draw_maps(RECIPES["hard"], 3, (320, 330), seed)
        return np.stack([one.expose(np.full((320, 330), 128.0))[:200, :200] for one in maps])

    np.testing.assert_array_equal(drawn(5), drawn(5))
    assert (drawn(5) != drawn(6)).mean() > 0.5


def test_twenty_sections_have_the_damage_of_the_recipe_and_no_black_border():
    for recipe in RECIPES.values():
        maps = draw_maps(recipe, 20, (512, 512), 1)
        kinds = [one.defect for one in maps]
        assert kinds.count("fold") == recipe.folds
        assert kinds.count("crack") == recipe.cracks
        assert kinds.count("resin") + kinds.count("no data") == recipe.blanks
        assert all(one.fits() for one in maps)
        assert len({one.shape_yx for one in maps}) == 1


def test_base_images_that_are_too_small_are_refused_with_a_way_out():
    with pytest.raises(ValueError, match="lower the recipe's shift_px"):
        draw_maps(RECIPES["std"], 2, (150, 150), 1)
