"""Stage "relax" of a stack that is relaxed in boxes: who reads and writes what.

    survey    per section   how many matches each pair has, how far they reach
    ties      once          which sections matches tie; how the stack is cut
    gather    per box       its share of the energy, the gradient and the coarse mesh
    correct   once          the coarse correction
    sweep     per box       the minimum over its nodes, colour by colour
    folds     per section   cells that would flip, to be stiffened; then sweeps go on
    sigma     per box
    fields    per section   the published field, sigma, and the residuals of its matches

Gather, correct and sweep repeat until the gradient of the whole stack is small. What a box found
lies below ``solve/`` and never changes: a driver or a worker that dies loses the units it was at.
The method is `alignment.schwarz`'s, and no unit holds more than one box or one section.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np

from alignment.errors import ConvergenceError
from alignment.relax import REPAIR_ROUNDS
from alignment.runs import Run
from alignment.schwarz import CORRECTION, Turn
from alignment.stages import inputs
from alignment.stages.slabreads import (
    reads_core,
    reads_finished,
    reads_gathered,
    reads_matches,
    reads_moved,
    reads_section,
    reads_surveys,
)
from alignment.stages.slabstate import (
    Slab,
    Solved,
    create_outputs,
    create_residuals,
    create_state,
    decomposition,
    grid_of,
    largest,
    path_of,
)
from alignment.stages.slabwork import (
    correct_all,
    find_folds,
    find_ties,
    finish_section,
    gather_box,
    sigma_box,
    survey,
    sweep_box,
)
from alignment.stages.units import Phase, Section, Whole
from storage.commit import records

log = logging.getLogger(__name__)

CONFIG = ("relax", "match", "filter")


def phases(run: Run) -> Iterator[Phase]:
    """Yield the phases; how many sweeps there are shows as they come."""
    nz = run.shape[0]
    config = run.config.relax
    yield Phase("survey", [Section(z) for z in range(nz)], survey, reads_matches, CONFIG)
    yield Phase("ties", [Whole()], find_ties, reads_surveys, CONFIG)
    cut = decomposition(run.uri)
    log.info("relaxing %s nodes in %d boxes, %d colours", cut.grid, len(cut.boxes), cut.colours)
    iteration = repairs = 0
    reference = 0.0
    while True:
        energy = np.inf
        while True:
            yield _gathering(run, iteration, repairs, reference)
            found = records.read_records(run.uri, "relax", f"gather-{iteration}-{repairs}")
            size = sum(record["square"] for record in found.values()) ** 0.5
            reference = reference or size
            now = sum(record["energy"] for record in found.values()) if iteration else np.inf
            residual = size / reference if reference else 0.0
            log.info("after %d sweeps: residual %.1e, energy %.9g", iteration, residual, now)
            if now > energy * (1 + 1e-9):
                raise ConvergenceError(
                    f"the energy rose from {energy:.9g} to {now:.9g} in sweep {iteration}; raise "
                    "relax.slab_sections, and please report it"
                )
            energy = now
            if iteration and residual <= config.tolerance:
                break
            if iteration >= config.max_sweeps:
                raise ConvergenceError(
                    f"{iteration} sweeps left a relative residual of {residual:.1e}, asked for "
                    f"{config.tolerance:.1e}; raise relax.max_sweeps or relax.tolerance"
                )
            yield _correction(run, iteration, repairs)
            iteration += 1
            for colour in range(cut.colours):
                yield _sweeping(run, iteration, colour, repairs, reference)
        yield _folding(run, iteration, repairs)
        folds = records.read_records(run.uri, "relax", f"folds-{repairs}").values()
        if repairs == REPAIR_ROUNDS or not any(record["cells"] for record in folds):
            break
        repairs += 1
        yield _gathering(run, iteration, repairs, reference)
        yield _correction(run, iteration, repairs)
        iteration += 1
        for colour in range(cut.colours):
            yield _sweeping(run, iteration, colour, repairs, reference)
    yield from _finishing(run, iteration, repairs)


def _gathering(run: Run, iteration: int, repairs: int, reference: float) -> Phase:
    name = f"gather-{iteration}-{repairs}"
    cut = decomposition(run.uri)
    shape = largest([cut.coarse(cut.neighbourhood(box.core)).shape for box in cut.boxes])
    most = -(-cut.halo[0] // 2**cut.halvings) + 1
    boxes = len(cut.boxes)
    nz, ny, nx = shape
    create_state(run, f"{name}/right", (boxes, nz, 2, ny, nx), "float64")
    create_state(run, f"{name}/sheets", (boxes, 2, nz, ny, nx), "float32")
    create_state(run, f"{name}/links", (boxes, nz, most, 5, ny, nx), "float32")
    units = [Slab(box.number, iteration, cut.colours, repairs) for box in cut.boxes]
    return Phase(name, units, gather_box, reads_core, CONFIG)


def _correction(run: Run, iteration: int, repairs: int) -> Phase:
    cut = decomposition(run.uri)
    nz, ny, nx = cut.coarse(cut.whole).shape
    create_state(run, path_of(Turn(iteration, CORRECTION)), (1, nz, 2, ny, nx), "float64")
    units = [Slab(0, iteration, CORRECTION, repairs)]
    return Phase(f"correct-{iteration}", units, correct_all, reads_gathered, CONFIG)


def _sweeping(run: Run, iteration: int, colour: int, repairs: int, reference: float) -> Phase:
    cut = decomposition(run.uri)
    boxes = cut.of_colour(colour)
    nz, ny, nx = largest([box.moved.shape for box in cut.boxes])
    turn = Turn(iteration, colour)
    create_state(run, path_of(turn), (len(cut.boxes), nz, 2, ny, nx), "float64")
    units = [Slab(box.number, iteration, colour, repairs, reference) for box in boxes]
    return Phase(f"sweep-{iteration}-{colour}", units, sweep_box, reads_moved, CONFIG)


def _folding(run: Run, iteration: int, repairs: int) -> Phase:
    nz, ny, nx = grid_of(run)
    create_state(run, f"stiffer-{repairs}", (nz, ny - 1, nx - 1), "uint8")
    units = [Solved(z, iteration, repairs) for z in range(nz)]
    return Phase(f"folds-{repairs}", units, find_folds, reads_section, CONFIG)


def _finishing(run: Run, iteration: int, repairs: int) -> Iterator[Phase]:
    cut = decomposition(run.uri)
    nz, ny, nx = cut.grid
    sz, sy, sx = largest([box.core.shape for box in cut.boxes])
    create_state(run, "sigma", (len(cut.boxes), sz, sy, sx), "float32")
    units = [Slab(box.number, iteration, cut.colours, repairs) for box in cut.boxes]
    yield Phase("sigma", units, sigma_box, reads_core, CONFIG)
    create_outputs(run, (nz, 2, ny, nx))
    for d in sorted({d for _, d in inputs.trusted_pairs(run)}):
        create_residuals(run, d)
    finished = [Solved(z, iteration, repairs) for z in range(nz)]
    yield Phase("fields", finished, finish_section, reads_finished, CONFIG)
