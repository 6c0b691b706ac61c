"""Stage "relax": one elastic mesh over all sections gives the displacement field."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from alignment.confidence import solver_weight
from alignment.match import CHANNELS, grid_spacing_px
from alignment.relax import PairMatches, relax_stack
from alignment.runs import Run, load
from alignment.stages import inputs
from alignment.stages.units import Phase, Record, Ref, Section, Whole
from storage.volume import create_array, open_array

COVARIANCE = [CHANNELS.index(name) for name in ("cov_yy", "cov_yx", "cov_xx")]


def phases(run: Run) -> Iterator[Phase]:
    """Yield the one solve; it needs every match of the stack."""
    yield Phase("solve", [Whole()], relax, reads_trusted, ("relax", "match"))


def reads_trusted(_: Whole, *, run_uri: str) -> list[Ref | str]:
    """Return the trusted matches of all sections, the canvas, and which sections are missing."""
    sections = sorted({z for z, _ in inputs.match_pairs(load(run_uri))})
    trusted = [Ref("filter", "sections", Section(z).label) for z in sections]
    return [*trusted, inputs.PLACED, inputs.missing_fact(run_uri)]


def relax(_: Whole, *, run_uri: str) -> Record:
    """Solve for all sections at once; write `fields`, `sigma` and the residual of every match."""
    run = load(run_uri)
    config = run.config.relax
    matches = []
    for z, d in inputs.trusted_pairs(run):
        trusted = inputs.read_row(open_array(run_uri, f"trusted/{d}"), z)
        sure = inputs.read_row(open_array(run_uri, f"confidence/{d}"), z)
        matches.append(
            PairMatches(z, d, trusted[:2], trusted[COVARIANCE], weight=solver_weight(sure))
        )
    relaxed = relax_stack(
        matches,
        run.shape[0],
        inputs.coarse(run_uri).canvas,
        grid_spacing_px(run.config.match),
        config,
        missing=inputs.missing(run_uri),
        threads=os.cpu_count() or 1,
    )
    _, _, ny, nx = relaxed.field.shape
    about = {"node_spacing_px": config.node_spacing_px, "unit": "px at mip 0"}
    outputs = {
        "fields": (relaxed.field, ("z", "dy_dx", "y", "x"), (1, 2, ny, nx)),
        "sigma": (relaxed.sigma, ("z", "y", "x"), (1, ny, nx)),
    }
    digests = {}
    for path, (values, names, chunk) in outputs.items():
        array = create_array(
            run.uri,
            path,
            shape=values.shape,
            chunk=chunk,
            dtype="float32",
            fill_value=np.nan,
            dimension_names=names,
            attributes=about,
        )
        digests[path] = inputs.write_all(array, values)
    _write_residuals(run, matches, relaxed.residual_px)
    return {
        "sha256": digests,
        "iterations": relaxed.minimum.steps,
        "residual": relaxed.minimum.residual,
        "flipped_repaired": int(relaxed.flipped_repaired),
        "bytes_read": sum(pair.displacement.nbytes for pair in matches),
        "bytes_written": int(relaxed.field.nbytes + relaxed.sigma.nbytes),
    }


def _write_residuals(run: Run, matches: list[PairMatches], residuals: object) -> None:
    for pair, residual in zip(matches, residuals, strict=True):  # type: ignore[call-overload]
        ny, nx = residual.shape
        array = create_array(
            run.uri,
            f"residuals/{pair.d}",
            shape=(run.shape[0], ny, nx),
            chunk=(1, ny, nx),
            dtype="float32",
            fill_value=np.nan,
            dimension_names=("z", "y", "x"),
            attributes={"unit": "px at mip 0"},
        )
        inputs.write_row(array, pair.z, residual)
