"""Siamese networks: two inputs through one network, and their correlogram."""

from __future__ import annotations

import numpy as np
import pytest

from inference import native
from inference.config import NCCNetConfig
from inference.engine import compile, from_nccnet, reference, sources
from inference.engine.builder import Builder
from inference.engine.correlation import correlogram
from inference.engine.ops import Activate, Activation, Correlate
from inference.errors import ShapeError, UnsupportedError
from inference.model import Network
from inference.nccnet import weight_shapes
from tests.inference.engine.samples import sample

needs_kernels = pytest.mark.skipif(native.widest() is None, reason="the kernels are not built")
SEARCH, TEMPLATE = (48, 56, 1), (16, 24, 1)


def _pair(batch=2):
    """Return search images and templates that are cut out of them, with some noise."""
    random = np.random.default_rng(0)
    search = random.uniform(0, 255, (batch, *SEARCH)).astype(np.float32)
    noise = random.normal(0, 5, (batch, *TEMPLATE)).astype(np.float32)
    return search, search[:, 8:24, 16:40] + noise


@pytest.mark.parametrize("similarity", ["pearson", "cosine"])
def test_a_correlogram_is_that_of_its_definition(similarity):
    builder = Builder(is_flat=True)
    names = [builder.input("input", (3, 1, *size)) for size in ((20, 23), (7, 10))]
    graph = builder.graph([builder.add("ncc", Correlate(similarity), *names)])
    search, template = sample((20, 23, 3))[0] + 3, sample((7, 10, 3), 1)[0]
    (expected,) = reference.run(graph, search[np.newaxis], template[np.newaxis])
    found = correlogram(search, template, similarity=similarity)
    np.testing.assert_allclose(found, expected[0], rtol=0, atol=1e-6)


def test_what_is_flat_correlates_with_nothing():
    search = sample((20, 23, 1))[0]
    search[4:14, 5:16] = 0.25
    found = correlogram(search, sample((7, 8, 1), 1)[0])[..., 0]
    assert (found[4:8, 5:9] == 0).all()
    assert abs(found[:4]).min() > 0
    assert (correlogram(search, np.full((7, 8, 1), 1e6, np.float32)) == 0).all()


@needs_kernels
def test_a_siamese_network_of_keras(tmp_path):
    pytest.importorskip("tensorflow", reason="the extra `train` is not installed")
    from inference.backends import by_keras
    from inference.ncc_layer import siamese
    from tests.engine_networks import drawn
    from tests.networks import saved

    model = siamese(drawn(by_keras.build(NCCNetConfig(widths=(8, 16)))))
    search, template = _pair()
    expected = np.asarray(model([search, template], training=False))
    (tmp_path / "siamese.keras").write_bytes(saved(model))
    assert sources.read(tmp_path / "siamese.keras").channels == (1,)
    for given in (model, tmp_path / "siamese.keras"):
        engine = compile(given, (SEARCH, TEMPLATE), tuning=False, threads=2)
        np.testing.assert_allclose(engine(search, template), expected, rtol=0, atol=1e-4)
    assert np.ptp(expected) > 0.2
    assert "then ncc: pearson correlation" in engine.plan()


@needs_kernels
def test_a_siamese_network_of_its_description():
    config = NCCNetConfig(widths=(8, 16))
    random = np.random.default_rng(0)
    shapes = weight_shapes(config).items()
    network = Network(
        config, {n: (0.2 * random.normal(size=s)).astype(np.float32) for n, s in shapes}
    )
    graph = from_nccnet.read_siamese(network, SEARCH[:2], TEMPLATE[:2])
    pair = _pair()
    found = compile(graph, tuning=False)(*pair)
    assert found.shape == (2, 33, 33, 1)
    for n in range(2):
        (expected,) = reference.run(graph, *(array[n][np.newaxis] for array in pair))
        np.testing.assert_allclose(found[n], expected[0], rtol=0, atol=1e-4)
        assert np.unravel_index(found[n].argmax(), (33, 33)) == (8, 16)


@needs_kernels
def test_outputs_keep_their_order_beside_a_correlogram():
    builder = Builder(is_flat=True)
    search, template = (builder.input("input", (2, 1, n, n)) for n in (12, 5))
    ncc = builder.add("ncc", Correlate(), search, template)
    seen = builder.add("seen", Activate(Activation("relu")), search)
    engine = compile(builder.graph([ncc, seen, ncc]), tuning=False)
    x, y = sample((12, 12, 2)), sample((5, 5, 2), 1)
    first, second, third = engine(x, y)
    np.testing.assert_array_equal(second, np.maximum(x, 0))
    np.testing.assert_array_equal(first, third)
    np.testing.assert_array_equal(first[0], correlogram(x[0], y[0]))
    with pytest.raises(ShapeError, match="takes 2 inputs, got 1"):
        engine(x)
    with pytest.raises(ShapeError, match=r"batches \(n, 5, 5, 2\)"):
        engine(np.concatenate([x, x]), y)


def test_a_correlogram_in_the_middle_is_refused_by_name():
    builder = Builder(is_flat=True)
    search, template = (builder.input("input", (2, 1, n, n)) for n in (12, 5))
    ncc = builder.add("ncc", Correlate(), search, template)
    graph = builder.graph([builder.add("behind", Activate(Activation("relu")), ncc)])
    with pytest.raises(UnsupportedError, match="'behind' takes that of 'ncc'"):
        compile(graph)
    with pytest.raises(ShapeError, match="cannot be searched"):
        builder.add("other", Correlate(), template, search)
