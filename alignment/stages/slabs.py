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
from dataclasses import replace
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from alignment.confidence import solver_weight
from alignment.energy import Condensed, StackEnergy, Vector
from alignment.errors import ConvergenceError
from alignment.fields import node_grid
from alignment.links import Links, PairMatches
from alignment.match import CHANNELS, grid_spacing_px
from alignment.relax import (
    REPAIR_FACTOR,
    REPAIR_ROUNDS,
    bridged,
    cells_to_stiffen,
    connected_parts,
    folding_cells,
    published,
    residual_lengths,
    unfold,
)
from alignment.runs import Run, load
from alignment.schwarz import (
    CORRECTION,
    Box,
    Decomposition,
    Gathered,
    Nodes,
    Problem,
    Triple,
    Turn,
    correct,
    decompose,
    gather,
    history,
    match_range,
    paint,
    sweep,
)
from alignment.stages import inputs
from alignment.stages.units import Phase, Record, Ref, Section, Whole
from alignment.uncertainty import estimate_sigma
from storage.commit import records
from storage.volume import Array, create_array, open_array, read_region, write_region

log = logging.getLogger(__name__)

COVARIANCE = [CHANNELS.index(name) for name in ("cov_yy", "cov_yx", "cov_xx")]
CONFIG = ("relax", "match", "filter")
TIES = Ref("relax", "ties", Whole().label)


class Slab(NamedTuple):
    """One box of the decomposition, at some point of the iteration."""

    number: int
    iteration: int
    colour: int
    repairs: int
    """How often cells were stiffened before."""
    reference: float = 0.0

    @property
    def label(self) -> str:
        """Return the box's name; the phase says the rest."""
        return f"box{self.number:05d}"


class Finished(NamedTuple):
    """One section of the answer."""

    z: int
    iteration: int
    """After whose sweeps it was found."""

    @property
    def label(self) -> str:
        """Return the section's name."""
        return Section(self.z).label


def is_cut(run: Run) -> bool:
    """Whether a run's stack is large enough to be relaxed in boxes."""
    grid = _grid(run)
    config = run.config.relax
    sizes = (config.slab_sections, config.tile_nodes, config.tile_nodes)
    return any(round(n / size) > 1 for n, size in zip(grid, sizes, strict=True))


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
    shape = _largest([cut.coarse(cut.neighbourhood(box.core)).shape for box in cut.boxes])
    most = -(-cut.halo[0] // 2**cut.halvings) + 1
    boxes = len(cut.boxes)
    nz, ny, nx = shape
    _state(run, f"{name}/right", (boxes, nz, 2, ny, nx), "float64")
    _state(run, f"{name}/sheets", (boxes, 2, nz, ny, nx), "float32")
    _state(run, f"{name}/links", (boxes, nz, most, 5, ny, nx), "float32")
    units = [Slab(box.number, iteration, cut.colours, repairs) for box in cut.boxes]
    return Phase(name, units, gather_box, reads_core, CONFIG)


def _correction(run: Run, iteration: int, repairs: int) -> Phase:
    cut = decomposition(run.uri)
    nz, ny, nx = cut.coarse(cut.whole).shape
    _state(run, _path(Turn(iteration, CORRECTION)), (1, nz, 2, ny, nx), "float64")
    units = [Slab(0, iteration, CORRECTION, repairs)]
    return Phase(f"correct-{iteration}", units, correct_all, reads_gathered, CONFIG)


def _sweeping(run: Run, iteration: int, colour: int, repairs: int, reference: float) -> Phase:
    cut = decomposition(run.uri)
    boxes = cut.of_colour(colour)
    nz, ny, nx = _largest([box.moved.shape for box in cut.boxes])
    turn = Turn(iteration, colour)
    _state(run, _path(turn), (len(cut.boxes), nz, 2, ny, nx), "float64")
    units = [Slab(box.number, iteration, colour, repairs, reference) for box in boxes]
    return Phase(f"sweep-{iteration}-{colour}", units, sweep_box, reads_moved, CONFIG)


def _folding(run: Run, iteration: int, repairs: int) -> Phase:
    nz, ny, nx = _grid(run)
    _state(run, f"stiffer-{repairs}", (nz, ny - 1, nx - 1), "uint8")
    units = [Slab(z, iteration, 0, repairs) for z in range(nz)]
    return Phase(f"folds-{repairs}", units, find_folds, reads_section, CONFIG)


def _finishing(run: Run, iteration: int, repairs: int) -> Iterator[Phase]:
    cut = decomposition(run.uri)
    nz, ny, nx = cut.grid
    sz, sy, sx = _largest([box.core.shape for box in cut.boxes])
    _state(run, "sigma", (len(cut.boxes), sz, sy, sx), "float32")
    units = [Slab(box.number, iteration, cut.colours, repairs) for box in cut.boxes]
    yield Phase("sigma", units, sigma_box, reads_core, CONFIG)
    create_outputs(run, (nz, 2, ny, nx))
    for d in sorted({d for _, d in inputs.trusted_pairs(run)}):
        create_residuals(run, d)
    finished = [Finished(z, iteration) for z in range(nz)]
    yield Phase("fields", finished, finish_section, reads_finished, CONFIG)


# ------------------------------------------------------------ what units read


def reads_matches(unit: Section, *, run_uri: str) -> list[Ref | str]:
    """Return the trusted matches of a section."""
    return [*_matches_of(run_uri, [unit.z]), inputs.missing_fact(run_uri)]


def reads_surveys(_: Whole, *, run_uri: str) -> list[Ref | str]:
    """Return what was counted of all sections, and the canvas."""
    nz = load(run_uri).shape[0]
    surveys = [Ref("relax", "survey", Section(z).label) for z in range(nz)]
    return [*surveys, inputs.PLACED, inputs.missing_fact(run_uri)]


def reads_core(unit: Slab, *, run_uri: str) -> list[Ref | str]:
    """Return what a box's share, or its sigma, is made from."""
    cut = decomposition(run_uri)
    nodes = cut.neighbourhood(cut.boxes[unit.number].core)
    turns = history(unit.iteration, cut.colours, cut.colours) if unit.iteration else []
    return [*_reads_nodes(run_uri, nodes, turns), *_reads_stiffer(nodes, unit.repairs)]


def reads_moved(unit: Slab, *, run_uri: str) -> list[Ref | str]:
    """Return what a sweep of a box is made from."""
    cut = decomposition(run_uri)
    nodes = cut.neighbourhood(cut.boxes[unit.number].moved)
    turns = history(unit.iteration, unit.colour, cut.colours)
    reads = [*_reads_nodes(run_uri, nodes, turns), *_reads_stiffer(nodes, unit.repairs)]
    return [*reads, f"reference {unit.reference!r}"]


def reads_gathered(unit: Slab, *, run_uri: str) -> list[Ref | str]:
    """Return the shares of all boxes."""
    name = f"gather-{unit.iteration}-{unit.repairs}"
    boxes = decomposition(run_uri).boxes
    return [TIES, *(Ref("relax", name, Slab(box.number, 0, 0, 0).label) for box in boxes)]


def reads_section(unit: Slab, *, run_uri: str) -> list[Ref | str]:
    """Return the last sweeps' state of a section, and its cells that were stiffened before."""
    cut = decomposition(run_uri)
    nodes = _section_nodes(cut, unit.number)
    turns = history(unit.iteration, cut.colours, cut.colours)
    return [TIES, *_reads_states(cut, nodes, turns), *_reads_stiffer(nodes, unit.repairs)]


def reads_finished(unit: Finished, *, run_uri: str) -> list[Ref | str]:
    """Return the last sweeps' state of a section and those it hangs on, its matches, its sigma."""
    cut = decomposition(run_uri)
    turns = history(unit.iteration, cut.colours, cut.colours)
    seen = sorted({*_needed(run_uri, unit.z), *(unit.z - d for d in _distances(run_uri, unit.z))})
    states = {ref for z in seen for ref in _reads_states(cut, _section_nodes(cut, z), turns)}
    here = _section_nodes(cut, unit.z)
    sigma = [
        Ref("relax", "sigma", Slab(box.number, 0, 0, 0).label)
        for box in cut.boxes
        if box.core.meets(here)
    ]
    return [
        *(TIES, inputs.missing_fact(run_uri)),
        *sorted(states),
        *sigma,
        *_matches_of(run_uri, [unit.z]),
    ]


def _reads_nodes(run_uri: str, nodes: Nodes, turns: list[Turn]) -> list[Ref | str]:
    sections = range(nodes.start[0], nodes.stop[0])
    surveys = [Ref("relax", "survey", Section(z).label) for z in sections]
    states = _reads_states(decomposition(run_uri), nodes, turns)
    return [TIES, *_matches_of(run_uri, sections), *surveys, *states, inputs.missing_fact(run_uri)]


def _reads_states(cut: Decomposition, nodes: Nodes, turns: list[Turn]) -> list[Ref]:
    refs = []
    for turn in turns:
        if turn.colour == CORRECTION:
            refs.append(Ref("relax", f"correct-{turn.iteration}", Slab(0, 0, 0, 0).label))
            continue
        name = f"sweep-{turn.iteration}-{turn.colour}"
        for box in cut.of_colour(turn.colour):
            if box.moved.meets(nodes):
                refs.append(Ref("relax", name, Slab(box.number, 0, 0, 0).label))
    return refs


def _reads_stiffer(nodes: Nodes, repairs: int) -> list[Ref]:
    if not repairs:
        return []
    name = f"folds-{repairs - 1}"
    return [
        Ref("relax", name, Slab(z, 0, 0, 0).label) for z in range(nodes.start[0], nodes.stop[0])
    ]


def _matches_of(run_uri: str, sections: Any) -> list[Ref]:
    judged = records.recorded(run_uri, "filter", "sections")
    return [
        Ref("filter", "sections", Section(z).label) for z in sections if Section(z).label in judged
    ]


# ------------------------------------------------------------ what units do


def survey(unit: Section, *, run_uri: str) -> Record:
    """Count a section's matches, by pair."""
    pairs = {}
    for pair in _pairs(load(run_uri), unit.z):
        links = pair.links(1)
        used = links.weight > 0
        reach = np.hypot(*links.match)[used]
        pairs[str(pair.d)] = {
            "count": int(used.sum()),
            "typical": _finite(pair.typical_variance()),
            "reach_px": float(reach.max(initial=0)),
        }
    return {"z": unit.z, "pairs": pairs}


def find_ties(_: Whole, *, run_uri: str) -> Record:
    """Find which sections matches tie, and how far matches reach."""
    run = load(run_uri)
    surveys = records.read_records(run_uri, "relax", "survey").values()
    pairs = [
        (record["z"], int(d), found)
        for record in surveys
        for d, found in record["pairs"].items()
        if found["count"]
    ]
    parts, tied = connected_parts([(z, d) for z, d, _ in pairs], run.shape[0])
    return {
        "grid": list(_grid(run)),
        "parts": parts,
        "tied": tied,
        "farthest": max((d for _, d, _ in pairs), default=1),
        "reach_px": max((found["reach_px"] for *_, found in pairs), default=0.0),
    }


def gather_box(unit: Slab, *, run_uri: str) -> Record:
    """Write a box's share of the coarse mesh; record that of the energy and the gradient."""
    run = load(run_uri)
    cut = decomposition(run_uri)
    box = cut.boxes[unit.number]
    nodes = cut.neighbourhood(box.core)
    turns = history(unit.iteration, cut.colours, cut.colours) if unit.iteration else []
    share = gather(
        *(_problem(run, nodes, unit.repairs), box, _painted(run, nodes, turns)),
        *(run.config.relax, grid_spacing_px(run.config.match), cut),
        is_believed=not unit.iteration,
    )
    name = f"gather-{unit.iteration}-{unit.repairs}"
    _write_state(run, f"{name}/right", unit.number, share.right)
    sheets = _open(run, f"{name}/sheets")
    values = np.zeros(sheets.shape[1:], np.float32)
    nz, ny, nx = share.nodes.shape
    values[0, :nz, : ny - 1, : nx - 1] = share.condensed.stiffness
    values[1, :nz, :ny, :nx] = share.condensed.mass
    write_region(sheets, _row(sheets, unit.number), values[None])
    array = _open(run, f"{name}/links")
    links = np.zeros(array.shape[1:], np.float32)
    for (z, fixed), pair in share.condensed.links.items():
        links[z, z - fixed - 1, :, :ny, :nx] = pair
    write_region(array, _row(array, unit.number), links[None])
    return {"energy": share.energy, "square": share.square}


def correct_all(unit: Slab, *, run_uri: str) -> Record:
    """Solve for the correction on the coarse mesh."""
    run = load(run_uri)
    cut = decomposition(run_uri)
    name = f"gather-{unit.iteration}-{unit.repairs}"
    step = correct((_share(run, name, cut, box) for box in cut.boxes), run.config.relax, cut)
    _write_state(run, _path(Turn(unit.iteration, CORRECTION)), 0, step)
    return {"largest_px": float(np.abs(step).max())}


def sweep_box(unit: Slab, *, run_uri: str) -> Record:
    """Find the minimum over a box's nodes."""
    run = load(run_uri)
    cut = decomposition(run_uri)
    box = cut.boxes[unit.number]
    nodes = cut.neighbourhood(box.moved)
    turns = history(unit.iteration, unit.colour, cut.colours)
    u, minimum = sweep(
        *(_problem(run, nodes, unit.repairs), box, _painted(run, nodes, turns)),
        *(run.config.relax, grid_spacing_px(run.config.match)),
        reference=unit.reference,
        boxes=len(cut.boxes),
    )
    _write_state(run, _path(Turn(unit.iteration, unit.colour)), unit.number, u)
    return {"rounds": len(minimum.rounds), "steps": minimum.steps, "reason": minimum.reason}


def find_folds(unit: Slab, *, run_uri: str) -> Record:
    """Find the cells of a section that fold; write which are to be stiffer, how often."""
    run = load(run_uri)
    cut = decomposition(run_uri)
    z = unit.number
    turns = history(unit.iteration, cut.colours, cut.colours)
    push = _painted(run, _section_nodes(cut, z), turns).astype(np.float32)
    folding = folding_cells(push, run.config.relax.node_spacing_px)
    stiffer = _stiffer(run, _section_nodes(cut, z), unit.repairs) + cells_to_stiffen(folding)
    array = _open(run, f"stiffer-{unit.repairs}")
    write_region(array, _row(array, z), stiffer.astype(np.uint8))
    return {"cells": int(np.count_nonzero(folding))}


def sigma_box(unit: Slab, *, run_uri: str) -> Record:
    """Estimate sigma at the nodes of a box's core."""
    run = load(run_uri)
    cut = decomposition(run_uri)
    box = cut.boxes[unit.number]
    nodes = cut.neighbourhood(box.core)
    problem = _problem(run, nodes, unit.repairs)
    spacing = grid_spacing_px(run.config.match)
    u = _painted(run, nodes, history(unit.iteration, cut.colours, cut.colours))
    energy = StackEnergy(
        *(problem.links, nodes.shape, spacing, run.config.relax),
        stiffness=problem.stiffness,
        free=problem.free,
    )
    ties = _ties(run_uri)
    first, last = nodes.start[0], nodes.stop[0]
    sigma = estimate_sigma(
        *(energy, u, spacing, ties["parts"][first:last]),
        [z - first for z in ties["tied"] if first <= z < last],
        origin=nodes.start,
    )
    z, y, x = box.core.within(nodes)
    _write_state(run, "sigma", unit.number, sigma[z, y, x])
    return {}


def finish_section(unit: Finished, *, run_uri: str) -> Record:
    """Write a section's published field, its sigma, and the residuals of its matches."""
    run = load(run_uri)
    cut = decomposition(run_uri)
    turns = history(unit.iteration, cut.colours, cut.colours)
    spacing = run.config.relax.node_spacing_px

    def push(z: int) -> NDArray[np.float32]:
        return _painted(run, _section_nodes(cut, z), turns)[0].astype(np.float32)

    tied = _ties(run_uri)["tied"]
    own = bridged(unit.z, push, tied)
    flipped = int(np.count_nonzero(folding_cells(own[None], spacing)))
    own = unfold(own, spacing)
    field = published(own, spacing)
    digest = inputs.write_row(open_array(run_uri, "fields"), unit.z, field)
    sigma = np.full(cut.grid[1:], np.nan, np.float32)
    here = _section_nodes(cut, unit.z)
    for box in cut.boxes:
        common = box.core.meets(here)
        if common is not None:
            _, y, x = common.within(here)
            values = _read_state(run, "sigma", box.number, box.core.shape)
            sigma[y, x] = values[common.within(box.core)][0]
    inputs.write_row(open_array(run_uri, "sigma"), unit.z, sigma)
    match_spacing = grid_spacing_px(run.config.match)
    for pair in _pairs(run, unit.z):
        links = pair.links(match_spacing)
        fixed = push(unit.z - pair.d).astype(np.float64)
        lengths = residual_lengths(links, own.astype(np.float64), fixed, spacing, match_spacing)
        inputs.write_row(open_array(run_uri, f"residuals/{pair.d}"), unit.z, lengths)
    return {"sha256": digest, "flipped_repaired": flipped}


# ------------------------------------------------------------ arrays


def create_outputs(run: Run, shape: tuple[int, int, int, int]) -> tuple[Array, Array]:
    """Create the published arrays: fields (nz, 2, ny, nx) and sigma (nz, ny, nx)."""
    nz, _, ny, nx = shape
    about = {"node_spacing_px": run.config.relax.node_spacing_px, "unit": "px at mip 0"}
    fields, sigma = (
        create_array(
            *(run.uri, path),
            shape=size,
            chunk=(1, *size[1:]),
            dtype="float32",
            fill_value=np.nan,
            dimension_names=names,
            attributes=about,
        )
        for path, size, names in (
            ("fields", shape, ("z", "dy_dx", "y", "x")),
            ("sigma", (nz, ny, nx), ("z", "y", "x")),
        )
    )
    return fields, sigma


def create_residuals(run: Run, d: int) -> Array:
    """Create the array of the residuals of all matches over a distance d."""
    shape = open_array(run.uri, f"trusted/{d}").shape
    size = (shape[0], *shape[-2:])
    return create_array(
        *(run.uri, f"residuals/{d}"),
        shape=size,
        chunk=(1, *size[1:]),
        dtype="float32",
        fill_value=np.nan,
        dimension_names=("z", "y", "x"),
        attributes={"unit": "px at mip 0"},
    )


def decomposition(run_uri: str) -> Decomposition:
    """Return how a run's stack is cut; known when its ties are."""
    ties = _ties(run_uri)
    config = load(run_uri).config
    return decompose(
        *(_triple(ties["grid"]), config.relax, grid_spacing_px(config.match)),
        farthest=ties["farthest"],
        reach_px=ties["reach_px"],
    )


def trusted(run: Run, z: int, d: int) -> PairMatches:
    """Return the matches of a pair that the filters left, with their weights."""
    found = inputs.read_row(open_array(run.uri, f"trusted/{d}"), z)
    sure = inputs.read_row(open_array(run.uri, f"confidence/{d}"), z)
    return PairMatches(z, d, found[:2], found[COVARIANCE], weight=solver_weight(sure))


def _pairs(run: Run, z: int) -> list[PairMatches]:
    """The pairs in which z moves, without those of a missing section."""
    gone = inputs.missing(run.uri)
    ends = [(z, d) for d in _distances(run.uri, z)]
    return [trusted(run, z, d) for z, d in ends if not {z, z - d} & gone]


def _distances(run_uri: str, z: int) -> list[int]:
    if Section(z).label not in records.recorded(run_uri, "filter", "sections"):
        return []
    found = records.read_commit(run_uri, "filter", "sections", Section(z).label)
    return sorted(map(int, found.value["pairs"]))


def _problem(run: Run, nodes: Nodes, repairs: int) -> Problem:
    """The matches, cells and held nodes among some nodes."""
    config, spacing = run.config.relax, grid_spacing_px(run.config.match)
    first, last = nodes.start[0], nodes.stop[0]
    rows, columns = match_range(nodes, spacing / config.node_spacing_px)
    links: list[Links] = []
    for z in range(first, last):
        surveyed = records.read_commit(run.uri, "relax", "survey", Section(z).label).value
        for pair in _pairs(run, z):
            if pair.z - pair.d < first:
                continue
            typical = surveyed["pairs"][str(pair.d)]["typical"]
            cut = replace(
                pair,
                z=z - first,
                displacement=pair.displacement[:, rows, columns],
                covariance=None if typical is None else pair.covariance[:, rows, columns],  # type: ignore[index]
                weight=pair.weight[rows, columns],  # type: ignore[index]
                typical=typical,
            )
            links.append(cut.links(spacing))
    factors = REPAIR_FACTOR ** _stiffer(run, nodes, repairs).astype(np.float32)
    return Problem(nodes, links, (config.stiffness * factors).astype(np.float32), None)


def _stiffer(run: Run, nodes: Nodes, repairs: int) -> NDArray[np.uint8]:
    """How often the cells among some nodes were made stiffer."""
    nz, ny, nx = nodes.shape
    if not repairs:
        return np.zeros((nz, ny - 1, nx - 1), np.uint8)
    (z0, y0, x0), (z1, y1, x1) = nodes
    array = _open(run, f"stiffer-{repairs - 1}")
    region = (slice(z0, z1), slice(y0, y1 - 1), slice(x0, x1 - 1))
    return np.asarray(read_region(array, region))


def _painted(run: Run, nodes: Nodes, turns: list[Turn]) -> Vector:
    def found(turn: Turn, box: Box | None) -> Vector:
        if box is None:
            shape = cut.coarse(cut.whole).shape
            return _read_state(run, _path(turn), 0, (shape[0], 2, *shape[1:]))
        nz, ny, nx = box.moved.shape
        return _read_state(run, _path(turn), box.number, (nz, 2, ny, nx))

    cut = decomposition(run.uri)
    return paint(nodes, turns, cut, found)


def _share(run: Run, name: str, cut: Decomposition, box: Box) -> Gathered:
    nodes = cut.coarse(cut.neighbourhood(box.core))
    nz, ny, nx = nodes.shape
    right = _read_state(run, f"{name}/right", box.number, (nz, 2, ny, nx))
    sheets = _read_state(run, f"{name}/sheets", box.number, (2, nz, ny, nx))
    array = _open(run, f"{name}/links")
    links = _read_state(run, f"{name}/links", box.number, (nz, *array.shape[2:4], ny, nx))
    pairs = {
        (z, z - d): links[z, d - 1]
        for z in range(nz)
        for d in range(1, min(z, links.shape[1]) + 1)
        if links[z, d - 1].any()
    }
    condensed = Condensed(sheets[0, :, : ny - 1, : nx - 1], sheets[1], pairs)
    return Gathered(0.0, 0.0, nodes, right, condensed)


def _state(run: Run, path: str, shape: tuple[int, ...], dtype: str) -> None:
    create_array(
        *(run.uri, f"solve/{path}"),
        shape=shape,
        chunk=(1, *shape[1:]),
        dtype=dtype,
        fill_value=0,
        dimension_names=("row", *(f"axis_{k}" for k in range(1, len(shape)))),
        attributes={"meaning": "state of the solver"},
    )


def _open(run: Run, path: str) -> Array:
    return open_array(run.uri, f"solve/{path}")


def _write_state(run: Run, path: str, row: int, values: NDArray[Any]) -> None:
    """Write a row, padded: boxes at the rim are smaller."""
    array = _open(run, path)
    padded = np.zeros(array.shape[1:], array.dtype)
    padded[tuple(slice(n) for n in values.shape)] = values
    write_region(array, _row(array, row), padded[None])


def _read_state(run: Run, path: str, row: int, shape: tuple[int, ...]) -> NDArray[Any]:
    array = _open(run, path)
    return read_region(array, (slice(row, row + 1), *map(slice, shape)))[0]


def _row(array: Array, row: int) -> tuple[slice, ...]:
    return (slice(row, row + 1), *(slice(None) for _ in array.shape[1:]))


def _path(turn: Turn) -> str:
    if turn.colour == CORRECTION:
        return f"correct-{turn.iteration}"
    return f"sweep-{turn.iteration}-{turn.colour}"


def _needed(run_uri: str, z: int) -> list[int]:
    """The sections from whose states a section's field is made."""
    tied = _ties(run_uri)["tied"]
    if z in tied or not tied:
        return [z]
    return [max((k for k in tied if k < z), default=tied[0]),
            min((k for k in tied if k > z), default=tied[-1])]  # fmt: skip


def _section_nodes(cut: Decomposition, z: int) -> Nodes:
    return Nodes((z, 0, 0), (z + 1, *cut.grid[1:]))


def _largest(shapes: list[Triple]) -> Triple:
    return _triple(np.max(shapes, axis=0).tolist())


@lru_cache(maxsize=8)
def _ties(run_uri: str) -> dict[str, Any]:
    return dict(records.read_commit(run_uri, "relax", "ties", Whole().label).value)


def _grid(run: Run) -> Triple:
    canvas = inputs.coarse(run.uri).canvas
    return (run.shape[0], *node_grid(canvas, run.config.relax.node_spacing_px))


def _triple(values: list[int]) -> Triple:
    z, y, x = values
    return z, y, x


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None
