"""What the units of `alignment.stages.slabs` read: all that enters their keys."""

from __future__ import annotations

from typing import Any

from alignment.decomposition import Decomposition, Nodes
from alignment.runs import Run, load
from alignment.schwarz import CORRECTION, Turn, history
from alignment.stages import inputs
from alignment.stages.slabstate import (
    Slab,
    Solved,
    decomposition,
    distances,
    is_cut,
    judged,
    section_nodes,
    sections_behind,
)
from alignment.stages.torn import reads_torn
from alignment.stages.units import Ref, Section, Whole

TIES = Ref("relax", "ties", Whole().label)


def relaxed(run: Run, z: int) -> Ref:
    """Return the published field of section z, as an input of other stages."""
    is_update = run.base is not None and bool(run.base.fields)
    if run.base and z in run.base.fields:
        phase, label = "kept", Section(z).label
    elif is_update or not is_cut(run):
        phase, label = "solve", Whole().label
    else:
        phase, label = "fields", Section(z).label
    return Ref("relax", phase, label, below=f"fields/c/{z}/")


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


def reads_section(unit: Solved, *, run_uri: str) -> list[Ref | str]:
    """Return the last sweeps' state of a section, and its cells that were stiffened before."""
    cut = decomposition(run_uri)
    nodes = section_nodes(cut, unit.z)
    turns = history(unit.iteration, cut.colours, cut.colours)
    return [TIES, *_reads_states(cut, nodes, turns), *_reads_stiffer(nodes, unit.repairs)]


def reads_finished(unit: Solved, *, run_uri: str) -> list[Ref | str]:
    """Return the last sweeps' state of a section and those it hangs on, its matches, its sigma."""
    cut = decomposition(run_uri)
    turns = history(unit.iteration, cut.colours, cut.colours)
    seen = sorted(
        {*sections_behind(run_uri, unit.z), *(unit.z - d for d in distances(run_uri, unit.z))}
    )
    states = {ref for z in seen for ref in _reads_states(cut, section_nodes(cut, z), turns)}
    here = section_nodes(cut, unit.z)
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
    run = load(run_uri)
    torn = [ref for z in sections for ref in reads_torn(run, z)]
    seen = [TIES, *_matches_of(run_uri, sections), *surveys, *torn, *states]
    return [*seen, inputs.PLACED, inputs.missing_fact(run_uri)]


def _reads_states(cut: Decomposition, nodes: Nodes, turns: list[Turn]) -> list[Ref]:
    refs = []
    for turn in turns:
        if turn.colour == CORRECTION:
            refs.append(Ref("relax", f"correct-{turn.iteration}", Slab(0, 0, 0, 0).label))
            continue
        name = f"sweep-{turn.iteration}-{turn.colour}"
        refs += [
            Ref("relax", name, Slab(box.number, 0, 0, 0).label)
            for box in cut.of_colour(turn.colour)
            if box.moved.meets(nodes)
        ]
    return refs


def _reads_stiffer(nodes: Nodes, repairs: int) -> list[Ref]:
    if not repairs:
        return []
    name = f"folds-{repairs - 1}"
    return [Ref("relax", name, Section(z).label) for z in range(nodes.start[0], nodes.stop[0])]


def _matches_of(run_uri: str, sections: Any) -> list[Ref]:
    labels = [Section(z).label for z in sections]
    return [Ref("filter", "sections", label) for label in labels if label in judged(run_uri)]
