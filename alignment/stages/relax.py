"""Stage "relax": one elastic mesh over all sections gives the displacement field.

A stack that one worker can hold is solved at once; a larger one in boxes (`alignment.stages.slabs`)
with the same answer; an update between the sections that keep their fields
(`alignment.stages.junction`).
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from alignment.match import grid_spacing_px
from alignment.relax import relax_stack
from alignment.runs import Run, load
from alignment.sigma_model import calibrated
from alignment.stages import inputs, junction, slabs, slabstate
from alignment.stages.torn import reads_torn, torn_section
from alignment.stages.units import Phase, Record, Ref, Section, Whole


def phases(run: Run) -> Iterator[Phase]:
    """Yield the one solve, which needs every match of the stack, or the phases of its boxes."""
    if run.base and run.base.fields:
        yield from junction.phases(run)
    elif slabstate.is_cut(run):
        yield from slabs.phases(run)
    else:
        yield Phase("solve", [Whole()], relax, reads_trusted, slabs.CONFIG)


def reads_trusted(_: Whole, *, run_uri: str) -> list[Ref | str]:
    """Return the trusted matches and the damage of all sections, the canvas, what is missing."""
    run = load(run_uri)
    sections = sorted({z for z, _ in inputs.match_pairs(run)})
    torn = [inputs.masked(z) for z in range(run.shape[0]) if reads_torn(run, z)]
    trusted = [Ref("filter", "sections", Section(z).label) for z in sections]
    return [*trusted, *torn, inputs.PLACED, inputs.missing_fact(run_uri)]


def relax(_: Whole, *, run_uri: str) -> Record:
    """Solve for all sections at once; write `fields`, `sigma` and the residual of every match."""
    run = load(run_uri)
    matches = [slabstate.trusted(run, z, d) for z, d in inputs.trusted_pairs(run)]
    relaxed = relax_stack(
        matches,
        run.shape[0],
        inputs.coarse(run_uri).canvas,
        grid_spacing_px(run.config.match),
        run.config.relax,
        missing=inputs.missing(run_uri),
        stiffness_map=np.stack([torn_section(run, z) for z in range(run.shape[0])]),
        threads=os.cpu_count() or 1,
    )
    nz, _, ny, nx = relaxed.field.shape
    fields, sigma = slabstate.create_outputs(run, (nz, 2, ny, nx))
    digests = {
        "fields": inputs.write_all(fields, relaxed.field),
        "sigma": inputs.write_all(sigma, calibrated(relaxed.sigma)),
    }
    for pair, residual in zip(matches, relaxed.residual_px, strict=True):
        inputs.write_row(slabstate.create_residuals(run, pair.d), pair.z, residual)
    return {
        "sha256": digests,
        **junction.convergence(relaxed),
        "bytes_read": sum(pair.displacement.nbytes for pair in matches),
        "bytes_written": int(relaxed.field.nbytes + relaxed.sigma.nbytes),
    }
