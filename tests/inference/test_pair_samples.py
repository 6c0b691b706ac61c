"""Samples of pairs: the same for a step whenever it is made, and the template lies where it may."""

from itertools import islice

import numpy as np
import pytest
from pydantic import ValidationError

from inference.config import AugmentConfig, NCCNetConfig, NCCTrainingConfig
from inference.pair_samples import PairPlace, batch_places, batches, held_out, random_of, varied

PLAIN = AugmentConfig(
    contrast=0, brightness=0, noise=0, blur_px=0, warp_px=0, defects=0, flips=False
)
NETWORK = NCCNetConfig(widths=(4, 8))


def config(**changes):
    settings = {
        "network": NETWORK, "search_px": 56, "template_px": 24, "rim_px": 4, "slack_px": 6,
        "batch": 4,
    }  # fmt: skip
    return NCCTrainingConfig(**settings | changes)


def stack():
    return np.random.default_rng(0).integers(1, 255, (6, 150, 150)).astype(np.uint8)


def read(z, y, x, side_px):
    return stack()[z, y : y + side_px, x : x + side_px]


def places(n=10):
    random = np.random.default_rng(1)
    return [PairPlace(*map(int, random.integers((2, 1, 0, 0), (6, 3, 86, 86)))) for _ in range(n)]


def test_every_pair_comes_once_an_epoch():
    some = places(8)
    for epoch in range(3):
        seen = [p for step in (0, 1) for p in batch_places(some, 2 * epoch + step, config())]
        assert sorted(seen) == sorted(some)
    assert batch_places(some, 0, config()) != batch_places(some, 2, config())


def test_a_step_has_the_same_samples_whenever_training_begins():
    first = list(islice(batches(places(), read, config()), 5))
    again = list(islice(batches(places(), read, config(), start=3), 2))
    for before, after in zip(first[3:], again, strict=True):
        np.testing.assert_array_equal(before.search, after.search)
        np.testing.assert_array_equal(before.template, after.template)
    assert first[0].search.shape == (4, 64, 64, 1)
    np.testing.assert_array_equal(first[3].place, again[0].place)
    assert first[0].template.shape == (4, 32, 32, 1)
    assert first[0].search.dtype == np.float32
    assert 0 <= first[0].search.min() <= first[0].search.max() <= 255


def test_a_template_was_cut_where_it_says_and_keeps_its_distance_from_the_rim():
    settings = config(augment=PLAIN)
    image = stack()[0, :64, :64].astype(np.float32)
    seen = set()
    for n in range(200):
        search, template, (y, x) = varied(image, image, settings, random_of(1, n))
        np.testing.assert_array_equal(search, image)
        np.testing.assert_array_equal(template, image[y : y + 32, x : x + 32])
        inner = search[4:-4, 4:-4][y : y + 24, x : x + 24]
        np.testing.assert_array_equal(template[4:-4, 4:-4], inner)
        seen.add((y, x))
    assert {y for y, _ in seen} == {x for _, x in seen} == set(range(6, 56 - 24 - 6 + 1))


def test_a_template_of_turned_images_was_cut_where_it_says():
    image = stack()[0, :64, :64].astype(np.float32)
    turned = set()
    for n in range(30):
        search, template, (y, x) = varied(
            image, image, config(augment=PLAIN.model_copy(update={"flips": True})), random_of(1, n)
        )
        np.testing.assert_array_equal(template, search[y : y + 32, x : x + 32])
        turned.add(search.tobytes())
    assert len(turned) == 8


def test_what_is_varied_is_varied_and_nothing_else():
    image = stack()[0, :64, :64].astype(np.float32)
    for name, value in AugmentConfig():
        settings = config(augment=PLAIN.model_copy(update={name: value}))
        changed = [
            any(
                not np.array_equal(a, b)
                for a, b in zip(
                    varied(image, image, settings, random_of(7, n))[:2],
                    varied(image, image, config(augment=PLAIN), random_of(7, n))[:2],
                    strict=True,
                )
            )
            for n in range(20)
        ]
        assert any(changed), name


def test_held_out_pairs_are_shown_once_as_they_are():
    found = list(held_out(places(10), read, config()))
    assert [len(batch.search) for batch in found] == [4, 4, 2]
    z, d, y, x = places(10)[5]
    np.testing.assert_array_equal(found[1].search[1, ..., 0], read(z - d, y, x, 64))
    dy, dx = found[1].place[1]
    np.testing.assert_array_equal(found[1].template[1, ..., 0], read(z, y + dy, x + dx, 32))
    again = list(held_out(places(10), read, config(batch=5)))
    np.testing.assert_array_equal(again[1].template[0], found[1].template[1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search_px": 57}, "must be a multiple of 2"),
        ({"rim_px": 3}, "rim_px=3 must be a multiple of 2"),
        ({"template_px": 46}, "twice slack_px=6"),
        ({"serch_px": 64}, "Extra inputs"),
    ],
)
def test_sides_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(ValidationError, match=message):
        config(**changes)
