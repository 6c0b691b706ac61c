"""Stage "relax" of an update: the junction round what changed, tied to fields that stay.

Only the sections that do not keep their fields are solved for; those that matches tie them to hold
still. So the mesh is as small as the change, however large the stack.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from alignment.fields import invert, node_grid
from alignment.links import PairMatches
from alignment.match import grid_spacing_px
from alignment.relax import Relaxed, relax_stack
from alignment.runs import Run, load
from alignment.sigma_model import calibrated
from alignment.stages import inputs, kept, slabs, slabstate
from alignment.stages.torn import reads_torn, torn_section
from alignment.stages.units import Phase, Record, Ref, Section, Whole
from storage.volume import open_array


class Junction(NamedTuple):
    """What is solved, and between what."""

    free: tuple[int, ...]
    """Sections that get new fields."""
    sections: tuple[int, ...]
    """They and those that matches tie them to, in order."""
    pairs: tuple[tuple[int, int], ...]
    """(z, d) of the matches that tie a free section to another."""

    @property
    def held(self) -> tuple[int, ...]:
        """Sections that hold still."""
        return tuple(z for z in self.sections if z not in self.free)


def phases(run: Run) -> Iterator[Phase]:
    """Yield the copying of the fields that stay, then the one solve of the others."""
    canvas = inputs.coarse(run.uri).canvas
    ny, nx = node_grid(canvas, run.config.relax.node_spacing_px)
    slabstate.create_outputs(run, (run.shape[0], 2, ny, nx))
    for d in sorted({d for _, d in inputs.trusted_pairs(run)}):
        slabstate.create_residuals(run, d)
    assert run.base  # only updates come here
    units = [Section(z) for z in sorted(run.base.fields)]
    yield Phase("kept", units, kept.keep_field, kept.reads_field)
    if junction_of(run.uri).free:
        yield Phase("solve", [Whole()], relax, reads_junction, slabs.CONFIG)


@lru_cache(maxsize=8)
def junction_of(run_uri: str) -> Junction:
    """Return what an update solves; cached, because it never changes."""
    run = load(run_uri)
    still = run.base.fields if run.base else frozenset()
    free = tuple(z for z in range(run.shape[0]) if z not in still)
    pairs = tuple(
        (z, d) for z, d in inputs.trusted_pairs(run) if z not in still or z - d not in still
    )
    sections = sorted({*free, *(z for z, _ in pairs), *(z - d for z, d in pairs)})
    return Junction(free, tuple(sections), pairs)


def reads_junction(_: Whole, *, run_uri: str) -> list[Ref | str]:
    """Return the matches, the damage and the places of the junction, and the fields that hold."""
    run, junction = load(run_uri), junction_of(run_uri)
    moving = sorted({z for z, _ in junction.pairs})
    return [
        *(Ref("filter", "sections", Section(z).label) for z in moving),
        *(ref for z in junction.sections for ref in reads_torn(run, z)),
        *(Ref("relax", "kept", Section(z).label) for z in junction.held),
        *inputs.place_facts(run_uri),
        f"free {list(junction.free)} of {list(junction.sections)}",
        f"missing {sorted(inputs.missing(run_uri) & {*junction.sections})}",
    ]


def relax(_: Whole, *, run_uri: str) -> Record:
    """Solve for the sections of the junction; write their fields, sigma and residuals."""
    run, junction = load(run_uri), junction_of(run_uri)
    number = {z: k for k, z in enumerate(junction.sections)}
    matches = [_renumbered(slabstate.trusted(run, z, d), number) for z, d in junction.pairs]
    config = run.config.relax
    relaxed = relax_stack(
        matches,
        len(number),
        inputs.coarse(run_uri).canvas,
        grid_spacing_px(run.config.match),
        config,
        missing={number[z] for z in inputs.missing(run_uri) if z in number},
        stiffness_map=np.stack([torn_section(run, z) for z in junction.sections]),
        held={
            number[z]: invert(kept.kept_field(run, z), config.node_spacing_px)
            for z in junction.held
        },
        threads=os.cpu_count() or 1,
    )
    fields, sigma = (open_array(run_uri, path) for path in ("fields", "sigma"))
    sure = calibrated(relaxed.sigma)
    digests = {
        Section(z).label: [
            inputs.write_row(fields, z, relaxed.field[number[z]]),
            inputs.write_row(sigma, z, sure[number[z]]),
        ]
        for z in junction.free
    }
    for (z, d), residual in zip(junction.pairs, relaxed.residual_px, strict=True):
        if z in junction.free:  # those of the others are kept with their fields
            inputs.write_row(open_array(run_uri, f"residuals/{d}"), z, residual)
    return {
        "sha256": digests,
        **convergence(relaxed),
        "bytes_read": sum(pair.displacement.nbytes for pair in matches),
        "bytes_written": len(junction.free) * int(relaxed.field[0].nbytes + sure[0].nbytes),
    }


def convergence(relaxed: Relaxed) -> Record:
    """Return what a record says of a solve."""
    return {
        "iterations": relaxed.minimum.steps,
        "rounds": len(relaxed.minimum.rounds),
        "residual": relaxed.minimum.residual,
        "reason": relaxed.minimum.reason,
        "flipped_repaired": relaxed.flipped_repaired,
    }


def _renumbered(pair: PairMatches, number: dict[int, int]) -> PairMatches:
    """Return a pair of the junction's sections alone, with the weight that its distance gives."""
    z, fixed = number[pair.z], number[pair.z - pair.d]
    weight = np.ones(pair.displacement.shape[1:]) if pair.weight is None else pair.weight
    factor = np.float32(((z - fixed) / pair.d) ** 2)  # a link weighs 1 / d^2, of the true d
    return replace(pair, z=z, d=z - fixed, weight=np.asarray(weight * factor, np.float32))
