"""The displacement field of a run as a zarr group from which strangers can map points."""

from __future__ import annotations

from typing import Any

from alignment.runs import load
from alignment.stages import inputs
from storage.errors import ConflictError
from storage.ome import group_document
from storage.store import create_json, join, list_names, normalise_uri
from storage.targets.blocks import Tell
from storage.targets.origin import Origin
from storage.volume import Array, create_array, open_array

_ARRAYS = ("coarse", "fields", "sigma")

HOW_TO_MAP = (
    "A point (z, y, x) of the aligned volume, px at mip 0, integer coordinates at pixel centres, "
    "shows the source section z at (sy, sx):",
    "1. s = node_spacing_px. Sample the field at (y / s, x / s) in units of nodes: clamp both to "
    "[0, number of nodes - 1], then interpolate linearly along each axis between the four nodes "
    "around: (dy, dx) = fields[z, :, ...].",
    "2. (qy, qx) = (y + dy, x + dx).",
    "3. A = coarse[z]: sy = A[0, 0] * qy + A[0, 1] * qx + A[0, 2], "
    "sx = A[1, 0] * qy + A[1, 1] * qx + A[1, 2].",
    "The way back: q = inverse of A applied to (sy, sx); then find (y, x) with (y, x) + field(y, x)"
    " = q, for example by repeating (y, x) = q - field(y, x) from (y, x) = q.",
    "Points at mip k: p_0 = (p_k + 0.5) * 2**k - 0.5 along y and x; z has no levels.",
)


def export_field(origin: Origin, dest: str, *, tell: Tell | None = None) -> list[str]:
    """Copy field, coarse affines and uncertainty of a run to `dest`; return the arrays' names.

    Sections are copied one at a time; the group's ``zarr.json``, which says what all of it means,
    comes last.

    Raises
    ------
    ConflictError
        If `dest` holds something else.
    MissingError, CorruptError
        If the run has no field, or it is damaged.
    """
    uri = normalise_uri(dest)
    others = [name for name in list_names(uri) if name not in (*_ARRAYS, "zarr.json")]
    if origin.run is None or others:
        raise ConflictError(
            f"{uri} holds {', '.join(others[:5])}; expected nothing, or this export. Give another "
            "name"
            if others
            else f"{origin.uri} is a single image; only a run has a displacement field"
        )
    run_uri = origin.uri.rpartition("/")[0]
    version = {"run": origin.run, "root": origin.root}
    for step in _ARRAYS:
        source = open_array(run_uri, step)
        target = create_array(
            uri,
            step,
            shape=source.shape,
            chunk=(1, *source.shape[1:]),
            dtype=source.dtype,
            fill_value=float(source.fill_value),
            dimension_names=_names(step),
            attributes={**_units(step), **version},
        )
        _copy(source, target, step, tell)
    create_json(join(uri, "zarr.json"), group_document({"petalign_field": _about(origin, run_uri)}))
    return list(_ARRAYS)


def _copy(source: Array, target: Array, step: str, tell: Tell | None) -> None:
    nz = source.shape[0]
    for z in range(nz):
        inputs.write_row(target, z, inputs.read_row(source, z))
        if tell:
            tell(step, z + 1, nz)


def _names(array: str) -> tuple[str, ...]:
    return {
        "coarse": ("z", "source_yx", "y_x_1"),
        "fields": ("z", "dy_dx", "y", "x"),
        "sigma": ("z", "y", "x"),
    }[array]


def _units(array: str) -> dict[str, Any]:
    units: dict[str, dict[str, Any]] = {
        "coarse": {"unit": "px at mip 0", "maps": "common frame to source"},
        "fields": {"unit": "px at mip 0", "components": ["dy", "dx"]},
        "sigma": {"unit": "px at mip 0", "meaning": "standard deviation of the field at a node"},
    }
    return units[array]


def _about(origin: Origin, run_uri: str) -> dict[str, Any]:
    """Return everything that a stranger needs besides the arrays."""
    run = load(run_uri)
    coarse = inputs.coarse(run_uri)
    return {
        "version": 1,
        "maps": "aligned volume to source: aligned[z, y, x] = source[z, sy, sx]",
        "transform": "source = coarse(p + field(p))",
        "how_to_map": list(HOW_TO_MAP),
        "node_spacing_px": run.config.relax.node_spacing_px,
        "interpolation": "bilinear between nodes; beyond them the nearest edge's value",
        "first_node": "node (i, j) lies on pixel (i * node_spacing_px, j * node_spacing_px)",
        "unit": "px at mip 0",
        "resolution_nm": {"z": run.resolution_nm[0], "y": run.resolution_nm[1]}
        | {"x": run.resolution_nm[2]},
        "aligned_shape": [run.shape[0], *coarse.canvas],
        "source_shape": list(run.shape),
        "section_names": list(run.section_names),
        "missing_sections": sorted(inputs.missing(run_uri)),
        "missing_sections_note": "no tissue of their own: their transforms are interpolated, and "
        "the aligned volume shows "
        + (
            "their nearest neighbour there"
            if run.config.render.bridge_missing == "copy"
            else "no data there"
        ),
        **origin.about,
    }
