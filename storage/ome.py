"""OME-Zarr 0.5: what a group says about the pyramid below it.

Pyramids halve y and x, never z, by averaging 2 x 2 px. The centre of the first pixel of mip k then
lies ``(2**k - 1) / 2`` px of mip 0 from the centre of the first pixel of mip 0; without that
translation viewers show the levels shifted against each other.

Specification: NGFF 0.5, https://ngff.openmicroscopy.org/0.5/
"""

from __future__ import annotations

import json
from typing import Any

from storage import store
from storage.commit.trust import Trust
from storage.errors import CorruptError, MismatchError
from storage.grid import ZYX

AXES = ("z", "y", "x")
VERSION = "0.5"


def level_shape(shape: ZYX, mip: int) -> ZYX:
    """Return the shape of a mip of an image whose mip 0 has `shape`; odd ends are kept.

    >>> level_shape((30, 513, 100), 2)
    (30, 129, 25)
    """
    nz, ny, nx = shape
    return nz, -(-ny // 2**mip), -(-nx // 2**mip)


def ome_attributes(
    *,
    name: str,
    resolution_nm: tuple[float, float, float],
    mips: int,
    prefix: str = "",
    window: tuple[int, int] | None = (0, 255),
    extra: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the attributes of the group of one pyramid.

    Parameters
    ----------
    name : str
        Shown by viewers.
    resolution_nm : tuple of float
        Voxel size of mip 0, (z, y, x).
    mips : int
        Number of levels; the arrays are called ``0`` to ``mips - 1``.
    prefix : str
        Path from the group to the folder of the arrays, if they do not lie in the group itself.
    window : tuple of int, optional
        Grey values that viewers show as black and white; None leaves that to them.
    extra : dict, optional
        Further attributes beside ``ome``.
    """
    z_nm, y_nm, x_nm = (float(step) for step in resolution_nm)
    datasets = []
    for mip in range(mips):
        shift_px = (2**mip - 1) / 2
        steps = [z_nm, y_nm * 2**mip, x_nm * 2**mip]
        offset = [0.0, y_nm * shift_px, x_nm * shift_px]
        datasets.append(
            {
                "path": f"{prefix.rstrip('/')}/{mip}" if prefix else str(mip),
                "coordinateTransformations": [
                    {"type": "scale", "scale": steps},
                    {"type": "translation", "translation": offset},
                ],
            }
        )
    ome: dict[str, Any] = {
        "version": VERSION,
        "multiscales": [
            {
                "name": name,
                "type": "mean",
                "axes": [{"name": a, "type": "space", "unit": "nanometer"} for a in AXES],
                "datasets": datasets,
            }
        ],
    }
    if window is not None:
        start, end = window
        shown = {"min": 0, "max": 255, "start": start, "end": end}
        ome["omero"] = {
            "channels": [{"label": name, "color": "FFFFFF", "active": True, "window": shown}],
            "rdefs": {"model": "greyscale"},
        }
    return {**(extra or {}), "ome": ome}


def group_document(attributes: dict[str, Any]) -> dict[str, Any]:
    """Return the zarr.json of a group."""
    return {"zarr_format": 3, "node_type": "group", "attributes": attributes}


def write_ome_group(uri: str, attributes: dict[str, Any]) -> None:
    """Replace the zarr.json of the group `uri` in one step; readers see the old or the new one."""
    store.replace_json(store.join(uri, "zarr.json"), group_document(attributes))


def read_level(
    uri: str, mip: int, *, held: Trust | None = None
) -> tuple[str, tuple[float, ...], tuple[float, ...]]:
    """Return path, voxel size (nm) and place of the first voxel's centre (nm) of a level.

    Raises
    ------
    MissingError
        If there is no group at `uri`.
    CorruptError
        If the group is not an OME-Zarr pyramid as this project writes it, or, with `held`, not what
        the run was sealed with.
    MismatchError
        If it has no level `mip`.
    """
    where = store.join(uri, "zarr.json")
    if held is None:
        document = store.read_json(where)
    else:
        document = json.loads(held.read_document(where.removeprefix(held.run_uri + "/")))
    try:
        datasets = document["attributes"]["ome"]["multiscales"][0]["datasets"]
        levels = [
            (
                str(d["path"]),
                tuple(float(v) for v in d["coordinateTransformations"][0]["scale"]),
                tuple(float(v) for v in d["coordinateTransformations"][1]["translation"]),
            )
            for d in datasets
        ]
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise CorruptError(
            f"{uri} is not an OME-Zarr {VERSION} pyramid with a scale and a translation per level "
            f"({type(error).__name__}: {error})"
        ) from None
    if not 0 <= mip < len(levels):
        raise MismatchError(f"{uri} has the mips 0 to {len(levels) - 1}; got mip {mip}")
    return levels[mip]
