from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.errors import ShapeError

tf = pytest.importorskip("tensorflow", reason="the extra `train` is not installed")

import keras  # noqa: E402

from inference import tf_ncc  # noqa: E402
from inference.ncc_layer import NCC, NormalisedConvolution  # noqa: E402
from inference.tf_ncc import correlograms, normalised_convolution  # noqa: E402
from tests.inference.correlations import by_definition, differences, per_channel  # noqa: E402

METHODS = ("fft", "spatial")
SIMILARITIES = ("pearson", "cosine")


def _pair(size, template, *, batch=2, channels=1, seed=0, dtype=np.float32):
    random = np.random.default_rng(seed)
    search = random.normal(size=(batch, *size, channels)).astype(dtype)
    return search, random.normal(size=(batch, *template, channels)).astype(dtype)


@st.composite
def _sizes(draw):
    size = draw(st.tuples(st.integers(3, 21), st.integers(3, 21)))
    return size, tuple(draw(st.integers(2, n)) for n in size)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(_sizes(), st.integers(1, 8), st.sampled_from(SIMILARITIES))
def test_both_ways_agree_with_the_definition(sizes, channels, similarity):
    search, template = _pair(*sizes, channels=channels)
    filters = np.moveaxis(template, 0, -1)
    expected = per_channel(search, template, similarity=similarity)
    convolved = by_definition(search, filters, similarity=similarity)
    assert expected.shape[1:3] == tuple(n - k + 1 for n, k in zip(*sizes, strict=True))
    for method in METHODS:
        how = {"method": method, "similarity": similarity}
        found = correlograms(tf.constant(search), tf.constant(template), **how)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        found = normalised_convolution(tf.constant(search), tf.constant(filters), **how)
        np.testing.assert_allclose(found, convolved, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("window", "template"), [(64, 16), (65, 17), (96, 40)])
def test_both_ways_agree_at_larger_sizes(window, template):
    search, part = _pair((window, window + 3), (template, template), batch=1, channels=2)
    part = part + search[:, 5 : 5 + template, 9 : 9 + template]
    expected = per_channel(search, part)
    for method in METHODS:
        found = correlograms(tf.constant(search), tf.constant(part), method=method).numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        assert abs(found).max() <= 1 + 1e-5


def test_the_published_size_by_fourier_and_by_opencv():
    cv2 = pytest.importorskip("cv2")
    search, template = _pair((512, 512), (160, 160), batch=1)
    found = correlograms(tf.constant(search), tf.constant(template))
    assert found.shape == (1, 353, 353, 1)
    expected = cv2.matchTemplate(search[0, ..., 0], template[0, ..., 0], cv2.TM_CCOEFF_NORMED)
    np.testing.assert_allclose(found[0, ..., 0], expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("grey", [0, 60_000])
def test_a_bright_flat_image_loses_no_digits(method, grey):
    """Noise of 1 grey value on 60000: the squares need 32 bits, float32 has 24."""
    search, template = _pair((80, 81), (24, 25), channels=2)
    search, template = search + np.float32(grey), template + np.float32(grey)
    found = correlograms(tf.constant(search), tf.constant(template), method=method)
    np.testing.assert_allclose(found, per_channel(search, template), rtol=0, atol=1e-5)


def test_the_variance_holds_beside_a_black_half():
    """No constant centres both halves; the sums are float64, the products float32."""
    search, template = _pair((64, 128), (16, 16), batch=1)
    search[:, :, 64:] += 60_000
    search[:, :, :64] = 0
    expected = per_channel(search, template)
    found = correlograms(tf.constant(search), tf.constant(template)).numpy()
    # Products round to 2**-24 of an image whose values are 30000 times those of a patch.
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.02)
    found = correlograms(tf.constant(np.float64(search)), tf.constant(np.float64(template)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_gain_and_offset_change_nothing(method):
    search, template = (tf.constant(a) for a in _pair((40, 40), (12, 12)))
    first = correlograms(search, template, method=method)
    for gain, offset in ((100.0, -3000.0), (1e-3, 0.5), (1e6, 0.0)):
        second = correlograms(gain * search + offset, 2 * template - 7, method=method)
        np.testing.assert_allclose(first, second, rtol=0, atol=2e-4 if gain < 1 else 2e-5)


def _gradients(function, *tensors):
    tensors = [tf.constant(t) for t in tensors]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        value = tf.reduce_sum(tf.sin(3 * function(*tensors)))
    return value, [g.numpy() for g in tape.gradient(value, tensors)]


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("method", METHODS)
def test_gradients_are_those_of_finite_differences(method, similarity):
    search, template = _pair((7, 8), (3, 4), batch=1, channels=2, dtype=np.float64)
    search[0, :4, :5, 0] = 1.5  # four flat patches
    filters = np.moveaxis(np.concatenate([template, 2 + template[:, ::-1]]), 0, -1)
    for function, tensors in (
        (correlograms, (search, template)),
        (normalised_convolution, (search, filters)),
    ):

        def scores(*given, function=function):
            return function(*given, method=method, similarity=similarity)

        _, found = _gradients(scores, *tensors)
        value = tf.function(lambda *given: tf.reduce_sum(tf.sin(3 * scores(*given))))
        expected = differences(value, tensors)
        is_smooth = np.ones(search.shape, bool)
        if similarity == "pearson" and function is correlograms:
            is_smooth[0, :4, :5, 0] = False  # a patch that is flat no more jumps
        np.testing.assert_allclose(found[0][is_smooth], expected[0][is_smooth], atol=1e-7)
        assert np.isfinite(found[0]).all()
        np.testing.assert_allclose(found[1], expected[1], atol=1e-7)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("method", METHODS)
def test_flat_patches_score_0_with_gradients_of_0(method, dtype):
    search, template = _pair((20, 20), (5, 5), dtype=dtype)
    search[:, :10] = 0.1  # not a binary fraction
    scores = correlograms(tf.constant(search), tf.constant(template), method=method).numpy()
    assert (scores[:, :6] == 0).all()
    assert (abs(scores[:, 6:]).max(axis=(1, 2)) > 0.1).all()
    for flat in (np.zeros_like(search), np.full_like(search, 60_000.1)):
        for pair in ((flat, template), (search, flat[:, :5, :5])):
            value, gradients = _gradients(lambda *given: correlograms(*given, method=method), *pair)
            assert value == 0
            assert all((g == 0).all() for g in gradients)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_graphs_with_sides_known_at_run_time_only(jit_compile):
    @tf.function(
        jit_compile=jit_compile,
        input_signature=[tf.TensorSpec((None, None, None, 1)), tf.TensorSpec((None, 9, 10, 1))],
    )
    def traced(search, template):
        return correlograms(search, template, method="fft")

    @tf.function(jit_compile=jit_compile)
    def value_and_gradient(search, template):
        with tf.GradientTape() as tape:
            tape.watch(search)
            value = tf.reduce_sum(correlograms(search, template) ** 2)
        return value, tape.gradient(value, search)

    search, template = (tf.constant(a) for a in _pair((30, 33), (9, 10)))
    eager = correlograms(search, template)
    if not jit_compile:  # XLA needs the lengths of Fourier transforms when it compiles
        np.testing.assert_allclose(traced(search, template), eager, rtol=0, atol=1e-6)
    value, gradient = value_and_gradient(search, template)
    np.testing.assert_allclose(value, tf.reduce_sum(eager**2), rtol=1e-4)
    assert np.isfinite(gradient).all()
    assert abs(gradient.numpy()).max() > 0
    # XLA does not shield roots at 0 as TensorFlow's own kernels do.
    value, gradient = value_and_gradient(tf.zeros_like(search), template)
    assert value == 0
    np.testing.assert_array_equal(gradient, tf.zeros_like(search))


def test_auto_takes_the_way_that_was_measured_to_be_faster(monkeypatch):
    used = []
    monkeypatch.setattr(tf_ncc, "_products_by_fft", lambda *_: used.append("fft") or _products)
    monkeypatch.setattr(tf_ncc, "_products_per_plane", lambda *_: used.append("here") or _products)
    side = int(tf_ncc.CROSSOVER_PX**0.5)
    for template in (side, side + 1):
        search, part = _pair((40, 40), (template, template))
        _products = tf.zeros((2, 1, 41 - template, 41 - template))
        correlograms(tf.constant(search), tf.constant(part))
    assert used == ["here", "fft"]


@pytest.mark.parametrize(
    ("search", "template"),
    [
        ((2, 8, 8, 1), (2, 9, 4, 1)),
        ((2, 8, 8, 1), (3, 4, 4, 1)),
        ((2, 8, 8, 1), (2, 4, 4, 2)),
        ((8, 8, 1), (4, 4, 1)),
    ],
)
def test_what_does_not_fit_is_refused(search, template):
    with pytest.raises(ShapeError, match="search image"):
        correlograms(tf.zeros(search), tf.zeros(template))
    if len(search) == 4:
        with pytest.raises(ShapeError, match="search image"):
            NCC().compute_output_shape(search, template)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_computes_in_float32(policy):
    search, template = _pair((40, 41), (9, 10), channels=2)
    half = policy.removeprefix("mixed_")
    search, template = tf.cast(30 * search + 500, half), tf.cast(30 * template + 500, half)
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        layer = NCC()
        found = layer(search, template)
        filters = NormalisedConvolution(3, (4, 5))
        assert filters(search).dtype == filters.kernel.dtype == "float32"
    finally:
        keras.config.set_dtype_policy(before)
    assert found.dtype == tf.float32
    expected = per_channel(*(tf.cast(x, tf.float64).numpy() for x in (search, template)))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


def _model():
    search, template = keras.Input((None, 20, 2)), keras.Input((9, None, 2))
    seen = NormalisedConvolution(3, (4, 5), name="patches")(search)
    both = NCC("fft", "cosine", name="ncc")(search, template)
    return keras.Model([search, template], [both, seen])


def test_layers_are_rebuilt_from_their_configuration():
    model = _model()
    assert [tuple(o.shape) for o in model.outputs] == [(None, None, None, 2), (None, None, 16, 3)]
    text = json.dumps(keras.saving.serialize_keras_object(model))
    again = keras.saving.deserialize_keras_object(json.loads(text))
    assert again.get_layer("ncc").get_config() == model.get_layer("ncc").get_config()
    assert again.get_layer("patches").get_config() == model.get_layer("patches").get_config()
    again.set_weights(model.get_weights())
    search, template = _pair((20, 20), (9, 8), channels=2)
    for ours, theirs in zip(model([search, template]), again([search, template]), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_allclose(
        model([search, template])[0],
        per_channel(search, template, similarity="cosine"),
        rtol=0,
        atol=1e-5,
    )


def test_learned_filters_find_what_they_are_given():
    """The layer learns by gradient descent, whatever the contrast of what it sees."""
    images, target = _pair((12, 12), (4, 4), batch=4)
    layer = NormalisedConvolution(1, (4, 4))
    patch = tf.constant(1e3 * target[:1] + 5e4)
    layer(images)
    optimizer = keras.optimizers.Adam(0.1)
    for _ in range(60):
        with tf.GradientTape() as tape:
            loss = -tf.reduce_mean(layer(patch))
        optimizer.apply(tape.gradient(loss, layer.trainable_variables), layer.trainable_variables)
    assert loss < -0.95
