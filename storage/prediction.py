"""A network's output as a volume of its own: OME-Zarr 0.5, channels first, one level.

It lies in a run like the aligned volume does, as ``prediction/``, and is published the same way.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import dask.array
import numpy as np
import xarray

from storage import store
from storage.aligned import Voxels
from storage.commit.trust import trust
from storage.errors import CorruptError, MissingError
from storage.grid import ZYX
from storage.ome import AXES, VERSION, group_document
from storage.publish import find_version, read_pointer
from storage.volume import Array, create_array, open_array, write_unit

GROUP = "prediction"
CHANNELS_FIRST = ("c", *AXES)


def create_prediction(
    run_uri: str,
    *,
    channels: int,
    shape: ZYX,
    chunk: ZYX,
    shard: ZYX,
    dtype: str,
    resolution_nm: tuple[float, ...],
    first_nm: tuple[float, ...],
) -> Array:
    """Create the array of a prediction, or open the one that is there.

    Parameters
    ----------
    channels : int
        All of them lie in each shard, each in chunks of its own.
    shape, chunk, shard : tuple of int
        (z, y, x).
    dtype : {"uint8", "float16"}
        uint8 holds 255 times what the network gives.
    resolution_nm, first_nm : tuple of float
        Voxel size, and the centre of the first voxel, (z, y, x).

    Returns
    -------
    Array
        Of the axes (c, z, y, x).
    """
    group = store.join(run_uri, GROUP)
    array = create_array(
        group,
        "0",
        shape=(channels, *shape),
        chunk=(1, *chunk),
        shard=(channels, *shard),
        dtype=dtype,
        fill_value=0,
        dimension_names=CHANNELS_FIRST,
    )
    document = group_document(_attributes(channels, dtype, resolution_nm, first_nm))
    store.create_json(store.join(group, "zarr.json"), document)
    return array


def _attributes(
    channels: int, dtype: str, resolution_nm: tuple[float, ...], first_nm: tuple[float, ...]
) -> dict[str, Any]:
    space = [{"name": a, "type": "space", "unit": "nanometer"} for a in AXES]
    place = [
        {"type": "scale", "scale": [1.0, *map(float, resolution_nm)]},
        {"type": "translation", "translation": [0.0, *map(float, first_nm)]},
    ]
    top = 255 if dtype == "uint8" else 1
    window = {"min": 0, "max": top, "start": 0, "end": top}
    shown = [
        {"label": str(c), "color": "FFFFFF", "active": c == 0, "window": window}
        for c in range(channels)
    ]
    multiscale = {
        "name": GROUP,
        "axes": [{"name": "c", "type": "channel"}, *space],
        "datasets": [{"path": "0", "coordinateTransformations": place}],
    }
    return {"ome": {"version": VERSION, "multiscales": [multiscale], "omero": {"channels": shown}}}


def open_prediction(uri: str | Path, *, at: int | str | None = None) -> xarray.DataArray:
    """Open a prediction; voxels are read when they are needed, and checked.

    Parameters
    ----------
    uri : str or Path
        Of a volume that `petalign predict` made, or of a run of it.
    at : int or str, optional
        A version instead of the present one, as in `storage.open_aligned`.

    Returns
    -------
    DataArray
        uint8 or float16 (c, z, y, x) over dask. Coordinates z, y, x are the voxels' centres in nm,
        those of the aligned volume's level. Attribute: `run`.

    Raises
    ------
    MissingError
        If nothing was published, `at` is no version, or there is no prediction.
    CorruptError
        If its metadata are not what it was published with, or, when they are read, its voxels.
    """
    where = store.normalise_uri(uri)
    version = read_pointer(where) if at is None else find_version(where, at)
    run_uri = where if version is None else store.join(where, "runs", version.run)
    document = store.join(run_uri, GROUP, "zarr.json")
    if not store.exists(document):
        raise MissingError(f"{where} holds no prediction: {document} does not exist")
    trusted = trust(run_uri, None if version is None else version.root)
    held = trusted if trusted.is_sealed else None
    array = open_array(run_uri, f"{GROUP}/0", held=held)
    text = held.read_document(f"{GROUP}/zarr.json") if held else store.read_bytes(document)
    scale, first = _placed(text, document)
    blocks = dask.array.from_array(
        Voxels(array),
        chunks=(1, *write_unit(array)[1:]),
        name=f"prediction-{run_uri}",
        asarray=False,
    )
    coordinates = {
        axis: (axis, a + s * np.arange(n), {"units": "nm", "long_name": f"{axis} position"})
        for axis, a, s, n in zip(AXES, first, scale, array.shape[1:], strict=True)
    }
    return xarray.DataArray(
        blocks,
        coords=coordinates,
        dims=CHANNELS_FIRST,
        name=GROUP,
        attrs={"run": run_uri.rpartition("/")[2]},
    )


def _placed(text: bytes, uri: str) -> tuple[list[float], list[float]]:
    """Return voxel size and place of the first voxel, (z, y, x) nm."""
    try:
        (level,) = json.loads(text)["attributes"]["ome"]["multiscales"][0]["datasets"]
        scale, translation = level["coordinateTransformations"]
        return scale["scale"][1:], translation["translation"][1:]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise CorruptError(f"{uri} is not the OME-Zarr image of a prediction: {error!r}") from None
