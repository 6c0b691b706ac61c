"""Volumes of any size, predicted in shards, are what the network gives for all of it at once."""

from __future__ import annotations

import numpy as np
import pytest

from inference import native
from inference.backends.files import load_network
from storage.store import join, replace_bytes
from tests.networks import model_file, saved
from tests.published import publish_aligned, texture

pytestmark = pytest.mark.skipif(native.widest() is None, reason="the kernels are not built")

SHAPE = (11, 75, 61)
"""No whole number of steps, shards or chunks along any axis."""


def residual():
    """A residual network that halves once, and sees 8 x 18 x 18 voxels far at most."""
    from tests.engine_networks import rsunet

    return saved(rsunet((None, None, None, 1), (6, 8)))


def at_once(file, image, margin):
    """Return what Keras makes of a whole volume, (channel, z, y, x); outside of it is 0."""
    pads = [(m, m + n % 2) for m, n in zip(margin, image.shape, strict=True)]
    x = np.pad(image, pads).astype(np.float32) / np.float32(255)
    network = load_network(file)
    values = network(x[np.newaxis, ..., np.newaxis])[0]
    first = [m - q for m, q in zip(margin, network.shrink(x.shape), strict=True)]
    inside = tuple(slice(a, a + n) for a, n in zip(first, image.shape, strict=True))
    return np.moveaxis(values[inside], -1, 0)


@pytest.mark.parametrize(
    ("join_by", "patch", "margin", "shard"),
    [
        ("valid", (22, 68, 68), (8, 18, 18), (8, 32, 32)),
        ("valid", (24, 76, 68), (8, 18, 18), (10, 36, 48)),  # shards of no whole number of steps
        ("blend", (14, 34, 34), (3, 5, 5), (8, 24, 24)),
    ],
)
def test_nothing_shows_where_patches_or_shards_meet(
    join_by, patch, margin, shard, prepare_run, values_of, tmp_path
):
    # Blended patches only agree where they overlap if none of their layers pads with zeros.
    file = residual() if join_by == "valid" else model_file(padding="valid")
    image = texture(SHAPE)
    source, model = (join(tmp_path.as_uri(), name) for name in ("source", "model.keras"))
    publish_aligned(source, image)
    replace_bytes(model, file)
    settings = {
        "patches": {"patch_px": patch, "margin_px": margin, "join": join_by},
        "network": {"backend": "engine"},
        "volume": {"shard": shard, "chunk": [s // 2 for s in shard]},
    }
    prepared = prepare_run(settings, source=source, of=model)
    found = values_of(prepared)
    assert len(found) == prepared.figures.units > 1
    expected = at_once(file, image, margin)
    assert np.ptp(expected, axis=(1, 2, 3)).max() > 0.1
    for start, values in found.items():
        region = tuple(slice(a, a + n) for a, n in zip(start, values.shape[1:], strict=True))
        np.testing.assert_allclose(values, expected[:, *region], rtol=0, atol=1e-4)
