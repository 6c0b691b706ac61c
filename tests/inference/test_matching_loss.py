"""The loss falls where the first peak stands out, in the right place and in the right image."""

from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("tensorflow") is None:
    pytest.skip("TensorFlow is not installed", allow_module_level=True)

import tensorflow as tf

from inference.config import NCCNetConfig, NCCTrainingConfig
from inference.matching_loss import matching_loss, peaks_of

CONFIG = NCCTrainingConfig(
    network=NCCNetConfig(widths=(4, 8)), search_px=32, template_px=12, rim_px=0, slack_px=3,
    radius_px=3,
)  # fmt: skip
PLACE = np.array([[4, 7], [12, 5]])


def images(noise, seed=0):
    """Return search images and templates that were cut from them, at `PLACE`, under noise."""
    random = np.random.default_rng(seed)
    search = random.normal(size=(2, 32, 32, 1)).astype(np.float32)
    template = np.stack(
        [s[y : y + 12, x : x + 12] for s, (y, x) in zip(search, PLACE, strict=True)]
    )
    template = template + noise * random.normal(size=template.shape).astype(np.float32)
    return tf.constant(search), tf.constant(template)


def loss(noise, place=PLACE, **changes):
    config = CONFIG.model_copy(update=changes)
    return float(matching_loss(*images(noise), tf.constant(place), config))


@pytest.mark.parametrize("kind", ["peaks", "contrast"])
def test_noise_raises_the_loss(kind):
    losses = [loss(noise, loss=kind) for noise in (0.0, 1.0, 4.0)]
    assert losses == sorted(losses)
    assert losses[-1] > losses[0] + 0.05


@pytest.mark.parametrize("kind", ["peaks", "contrast"])
def test_a_peak_elsewhere_does_not_count_as_the_first_if_guided(kind):
    beside = PLACE + 7  # more than slack_px from where the template was cut
    assert loss(0.5, beside, loss=kind, guided=False) == loss(0.5, loss=kind, guided=False)
    assert loss(0.5, loss=kind) == pytest.approx(loss(0.5, loss=kind, guided=False))
    assert loss(0.5, beside, loss=kind) > loss(0.5, loss=kind) + 0.2


@pytest.mark.parametrize("kind", ["peaks", "contrast"])
def test_a_likeness_of_everything_is_punished_by_the_other_image(kind):
    """Images that are all alike match perfectly, and say nothing."""
    search, template = images(0.0)
    search, template = (tf.repeat(x[:1], 2, axis=0) for x in (search, template))
    place = tf.repeat(tf.constant(PLACE[:1]), 2, axis=0)

    def of(weight):
        config = CONFIG.model_copy(update={"dissimilar": weight, "loss": kind})
        return float(matching_loss(search, template, place, config))

    assert of(1.0) > of(0.0) + (0.9 if kind == "peaks" else 0.03)


def test_the_loss_of_peaks_is_the_published_one():
    search, template = images(1.0)
    scores = [
        [
            np.corrcoef(template[n, ..., 0].numpy().ravel(), patch(search[m], y, x).ravel())[0, 1]
            for y in range(21)
            for x in range(21)
        ]
        for n, m in ((0, 0), (1, 1), (0, 1), (1, 0))
    ]
    own, foreign = np.array(scores[:2]).reshape(2, 21, 21), np.array(scores[2:])
    margins = []
    for surface in own:
        y, x = np.unravel_index(surface.argmax(), surface.shape)
        rest = surface.copy()
        rest[max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4] = -1
        margins.append(surface.max() - rest.max())
    expected = foreign.max(axis=1).mean() - np.mean(margins)
    assert loss(1.0, loss="peaks", guided=False) == pytest.approx(expected, abs=1e-5)


def patch(image, y, x):
    return image[y : y + 12, x : x + 12, 0].numpy()


def test_a_coarser_level_counts_in_its_own_pixels():
    search, template = images(0.2)
    peaks, surface = peaks_of(search, template, tf.constant(PLACE * 4 + 1), CONFIG, scale=4)
    np.testing.assert_array_equal(peaks.place, PLACE)
    assert surface.shape == (2, 21, 21)
    assert int(tf.reduce_sum(tf.cast(peaks.near[0], tf.int32))) == 9, "a radius of 3 px is 1 here"


def test_gradients_are_finite_also_without_a_second_place():
    search, template = images(0.0)
    for kind in ("peaks", "contrast"):
        config = CONFIG.model_copy(update={"radius_px": 40, "loss": kind, "dissimilar": 0.0})
        with tf.GradientTape() as tape:
            tape.watch(search)
            value = matching_loss(search, template, tf.constant(PLACE), config)
        assert np.isfinite(tape.gradient(value, search)).all()
