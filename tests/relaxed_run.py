"""A run of which all stages before rendering are done, without doing them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from alignment.pyramid import halve
from alignment.runs import load, prepare
from alignment.stages import ingest, inputs
from storage.commit import records
from storage.grid import Box
from storage.volume import create_array, create_image, open_array, write

RESOLUTION_NM = (40.0, 4.0, 4.0)


def relaxed_run(
    folder: Path,
    sections: Sequence[Callable[[], np.ndarray]],
    shape_yx: tuple[int, int],
    *,
    fields: np.ndarray,
    matrices: np.ndarray,
    canvas: tuple[int, int],
    valid: np.ndarray | None = None,
    missing: Sequence[int] = (),
    config: dict[str, Any] | None = None,
) -> str:
    """Return the URI of a run with sections, masks, places and fields as they are given.

    Sections are there up to `masks.mip`, and their masks at that: (z, y, x), 1 is valid.
    """
    shape = (len(sections), *shape_yx)
    source = (folder / "raw.zarr").as_uri()
    whole = {"chunk": (1, 512, 512), "shard": (1, 4096, 4096), "resolution_nm": RESOLUTION_NM}
    create_image(source, shape=shape, mips=1, name="raw", **whole)
    run = load(prepare(source, (folder / "volume").as_uri(), config))
    next(ingest.phases(run))  # creates the arrays
    for z, section in enumerate(sections):
        image = section()[np.newaxis]
        for mip in range(run.config.masks.mip + 1):
            box = Box((z, 0, 0), (z + 1, *image.shape[1:]), mip)
            write(open_array(run.uri, f"sections/{mip}"), box, image)
            image = halve(image)
        value = {"z": z, "missing": z in missing}
        records.record(run.uri, "masks", "sections", inputs.masked(z).unit, value)
    mask_shape = run.shape_at(run.config.masks.mip)
    arrays = {
        "valid": np.ones(mask_shape, np.uint8) if valid is None else valid,
        "fields": fields,
        "coarse": matrices,
    }
    for path, values in arrays.items():
        array = create_array(
            run.uri,
            path,
            shape=values.shape,
            chunk=(1, *values.shape[1:]) if path != "coarse" else values.shape,
            dtype=values.dtype,
            fill_value=0,
            dimension_names=tuple("zabc"[: values.ndim]),
        )
        inputs.write_all(array, values)
    placed = {"canvas": list(canvas), "seat": [0, 0], "matrices": matrices.tolist()}
    records.record(run.uri, "coarse", "solve", "all", placed)
    return run.uri


def do_stage(run_uri: str, stage: ModuleType) -> None:
    """Do all units of a stage here, in this process, and record what they return."""
    name = stage.__name__.rpartition(".")[2]
    for phase in stage.phases(load(run_uri)):
        for unit in phase.units:
            list(phase.inputs(unit, run_uri=run_uri))
            value = phase.work(unit, run_uri=run_uri)
            records.record(run_uri, name, phase.name, unit.label, value)
