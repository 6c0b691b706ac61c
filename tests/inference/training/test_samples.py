"""Labelled samples: the same for a number, dealt out without gaps, image and labels together."""

import numpy as np
import pytest

from inference.errors import TrainingError
from inference.training.augment import varied
from inference.training.config import ElasticConfig, TrainConfig, UNetConfig
from inference.training.samples import Samples, stacked, stream

VALID = UNetConfig(layers=2, features_root=2, padding="valid", dropout=0.0)
PLAIN = ElasticConfig(elastic_px=0, contrast=0, brightness=0, noise=0, flips=False)
IMAGES = np.random.default_rng(0).integers(0, 256, (4, 60, 72), np.uint8)
LABELS = (IMAGES > 127).astype(np.uint8)


def read(start, stop):
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    assert all(0 <= a < b <= n for a, b, n in zip(start, stop, IMAGES.shape, strict=True))
    return IMAGES[box], LABELS[box]


def samples(**settings):
    config = TrainConfig(
        **{"network": VALID, "patch_px": (1, 24, 32), "augment": PLAIN, "held_out": 3} | settings
    )
    return Samples(read, IMAGES.shape, (0, 1, 2), (3,), config)


def test_what_an_image_shows_has_its_label_also_beyond_the_rim():
    some = samples()
    for number in range(20):
        image, labels = some.training(number)
        q = VALID.shrink_px[1]
        assert image.shape == (1, 24 + 2 * q, 32 + 2 * q, 1)
        np.testing.assert_array_equal(labels[0], image[0, q:-q, q:-q, 0] > 0.499)


def test_samples_reach_the_rim_only_if_what_is_beyond_is_mirrored():
    q = VALID.shrink_px[1]
    whole = {"patch_px": (1, 60, 72)}
    image = samples(**whole).training(0).images[0, ..., 0]
    np.testing.assert_array_equal(image[:q], image[q + 1 : 2 * q + 1][::-1])
    with pytest.raises(TrainingError, match=r"training\.borders=mirror"):
        samples(**whole, borders="inside")


def test_each_section_comes_up_once_in_as_many_samples():
    seen = []
    some = Samples(
        lambda start, stop: seen.append(start[0]) or read(start, stop),
        IMAGES.shape, (0, 1, 2), (3,), samples().config,
    )  # fmt: skip
    for number in range(9):
        some.training(number)
    assert [sorted(seen[k : k + 3]) for k in (0, 3, 6)] == [[0, 1, 2]] * 3
    list(some.held_out())
    assert set(seen[9:]) == {3}


@pytest.mark.parametrize("start", [0, 3])
def test_two_workers_see_what_one_of_twice_the_batch_sees(start):
    halves = [stream(samples(batch=2), worker=w, workers=2, start=start) for w in (0, 1)]
    whole = stream(samples(batch=4), worker=0, workers=1, start=start)
    for _ in range(3):
        both, one = stacked([next(half) for half in halves]), next(whole)
        for ours, theirs in zip(both, one, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    for each in (*halves, whole):
        each.close()


def test_warps_move_image_and_labels_alike():
    random = np.random.default_rng(1)
    labels = np.zeros((2, 96, 96), np.uint8)
    labels[:, 30:60, 40:70] = 1
    image = labels.astype(np.float32)
    config = ElasticConfig(contrast=0, brightness=0, noise=0)
    for _ in range(5):
        moved, moved_labels = varied(image, labels, config, random)
        assert (moved_labels != labels).any()
        assert set(np.unique(moved_labels)) <= {0, 1}
        # They differ where linear interpolation blurs the edge, within half a pixel of it.
        np.testing.assert_array_equal(moved[moved_labels == 0] <= 0.75, True)
        assert np.mean((moved > 0.5) != moved_labels) < 0.01


def test_grey_values_stay_in_range_and_follow_the_seed():
    random = [np.random.default_rng(7) for _ in range(2)]
    image = np.random.default_rng(0).random((1, 40, 56), np.float32)
    labels = (image > 0.5).astype(np.uint8)
    first, second = (varied(image, labels, ElasticConfig(), each) for each in random)
    for ours, theirs in zip(first, second, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert first[0].dtype == np.float32
    assert first[0].min() >= 0
    assert first[0].max() <= 1


def test_samples_of_background_can_be_passed_over():
    def mostly_empty(start, stop):
        image, labels = read(start, stop)
        rows = np.arange(start[1], stop[1])[np.newaxis, :, np.newaxis]
        return image, labels * (rows < 12).astype(np.uint8)

    config = samples(only_labelled=True).config
    some = Samples(mostly_empty, IMAGES.shape, (0, 1, 2), (3,), config)
    assert all(some.training(n).labels.any() for n in range(10))
    assert all(batch.labels.any() for batch in some.held_out())


def test_a_label_without_a_class_is_refused():
    some = Samples(
        lambda *box: (read(*box)[0], read(*box)[1] * 2), IMAGES.shape, (0,), (3,), samples().config
    )
    with pytest.raises(TrainingError, match="a label is 2, and the network has 2 classes"):
        some.training(0)
