"""Predictions in storage: what other programs see, and what is not there."""

from __future__ import annotations

import numpy as np
import ome_zarr_models
import pytest
import zarr

from storage.errors import ConflictError, CorruptError, MissingError
from storage.prediction import create_prediction, open_prediction
from storage.store import join, replace_json
from storage.volume import write_region

LAYOUT = {
    "channels": 3, "shape": (4, 60, 50), "chunk": (4, 16, 16), "shard": (4, 32, 32),
    "resolution_nm": (40.0, 8.0, 8.0), "first_nm": (0.0, 2.0, 2.0),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["uint8", "float16"])
def test_a_prediction_is_an_ome_zarr_image_with_channels_first(tmp_path, dtype):
    array = create_prediction(tmp_path.as_uri(), dtype=dtype, **LAYOUT)
    values = np.random.default_rng(0).integers(0, 255, array.shape).astype(dtype)
    write_region(array, (slice(None),) * 4, values)
    group = zarr.open_group(tmp_path / "prediction", mode="r")
    image = ome_zarr_models.open_ome_zarr(group)
    (multiscale,) = image.ome_attributes.multiscales
    assert [axis.name for axis in multiscale.axes] == ["c", "z", "y", "x"]
    np.testing.assert_array_equal(group["0"][:], values)

    found = open_prediction(tmp_path)
    np.testing.assert_array_equal(found.values, values)
    assert found.dtype == dtype
    np.testing.assert_allclose(found.y[:2], [2, 10])
    assert found.sel(c=1, z=40.0).shape == (60, 50)


def test_creating_it_again_is_the_same_and_otherwise_is_refused(tmp_path):
    create_prediction(tmp_path.as_uri(), dtype="uint8", **LAYOUT)
    create_prediction(tmp_path.as_uri(), dtype="uint8", **LAYOUT)
    with pytest.raises(ConflictError):
        create_prediction(tmp_path.as_uri(), dtype="float16", **LAYOUT)


def test_voxels_that_were_never_written_are_no_zeros(tmp_path):
    create_prediction(tmp_path.as_uri(), dtype="uint8", **LAYOUT)
    with pytest.raises(MissingError, match="never written"):
        open_prediction(tmp_path).values  # noqa: B018


def test_what_is_no_prediction_is_refused(tmp_path):
    with pytest.raises(MissingError, match="holds no prediction"):
        open_prediction(tmp_path)
    create_prediction(tmp_path.as_uri(), dtype="uint8", **LAYOUT)
    replace_json(join(tmp_path.as_uri(), "prediction/zarr.json"), {"attributes": {}})
    with pytest.raises(CorruptError, match="is not the OME-Zarr image"):
        open_prediction(tmp_path)
