"""Relaxation: one elastic mesh over all sections gives every section's displacement.

A match m at point p of section z against section z - d says that both show the same tissue:
``p + U_z(p) = (p + m) + U_{z-d}(p + m)``, U the push field, bilinear between the nodes. The fields
minimise the misfit of all matches plus the elastic energy of all sections, one robust least-squares
problem over the whole stack (`alignment.energy`), whose minimum Newton's method finds
(`alignment.newton`) with conjugate gradients and multigrid. Only relative displacements are
measured; the anchor makes the mean of U zero.

References
----------
.. [1] S. Saalfeld et al., "Elastic volume reconstruction from series of ultra-thin microscopy
   sections", Nature Methods 9, 2012: sections as elastic sheets tied by block matches.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.ndimage import binary_dilation, uniform_filter
from scipy.sparse.csgraph import connected_components

from alignment.config import RelaxConfig
from alignment.energy import StackEnergy, Vector
from alignment.errors import ConfigError, ConvergenceError, DataError, ShapeError
from alignment.fields import Field, flipped_cells, invert, node_grid, quantise
from alignment.links import Links, PairMatches, residual
from alignment.newton import Minimum, minimise
from alignment.uncertainty import estimate_sigma

__all__ = ["PairMatches", "Relaxed", "relax_stack"]

_LEAST_AREA = 0.1  # a cell that shrinks to this share of its area is about to flip
REPAIR_ROUNDS = 3
REPAIR_FACTOR = 8.0
_SMOOTHING_ROUNDS = 500

Stack = NDArray[np.float32]


@dataclass(frozen=True)
class Relaxed:
    """The displacement fields of a stack.

    Attributes
    ----------
    push : float32 ndarray of shape (nz, 2, ny, nx)
        Coarse-frame point p of a section goes to aligned point p + push(p); px at mip 0.
    field : float32 ndarray of shape (nz, 2, ny, nx)
        Its inverse, the published pull field, rounded to 1/32 px. No cell of either flips.
    sigma : float32 ndarray of shape (nz, ny, nx)
        Standard error, px per component, of a node's place against the mean of the sections next to
        it. NaN for bridged sections.
    residual_px : tuple of float32 ndarrays (my, mx)
        For every pair, in the order given: length of predicted minus measured displacement; NaN
        where no match was used.
    minimum : Minimum
        Where the energy is least, and how it was found.
    flipped_repaired : int
        Cells that would have (nearly) flipped and were stiffened or smoothed.
    bridged : tuple of int
        Sections without a match, missing ones among them; theirs is interpolated in z.
    parts : tuple of int
        For every section the number of its part: matches tie sections of one part, while two parts
        lie to each other as the coarse stage put them. A bridged section is a part of its own.
    """

    push: Stack
    field: Stack
    sigma: Stack
    residual_px: tuple[NDArray[np.float32], ...]
    minimum: Minimum
    flipped_repaired: int
    bridged: tuple[int, ...]
    parts: tuple[int, ...]


def relax_stack(
    matches: Sequence[PairMatches],
    nz: int,
    canvas_yx: tuple[int, int],
    match_spacing_px: int,
    config: RelaxConfig,
    *,
    missing: Collection[int] = (),
    stiffness_map: NDArray[np.float32] | None = None,
    held: Mapping[int, Field] | None = None,
    threads: int = 1,
) -> Relaxed:
    """Find the displacement fields of all sections of a stack.

    Parameters
    ----------
    matches : sequence of PairMatches
        Each pair once, in any order.
    nz : int
        Number of sections.
    canvas_yx : tuple of int
        Extent of the common frame, px at mip 0.
    match_spacing_px : int
        Distance of the matches, px at mip 0; need not be that of the mesh's nodes.
    config : RelaxConfig
    missing : collection of int
        Sections to leave out; theirs is interpolated from the nearest good ones.
    stiffness_map : float32 ndarray of shape (nz, ny - 1, nx - 1), optional
        Factor on the stiffness of every cell, above 0: small where tissue is torn, so that the two
        sides of a crack move without dragging each other.
    held : mapping of z to float32 ndarray of shape (2, ny, nx), optional
        Push fields that stay as they are, px at mip 0; the others give way to them.
    threads : int
        They do not change the bits.

    Raises
    ------
    ShapeError, DataError
        If an array does not fit the stack.
    ConvergenceError
        If config.max_iterations do not reach config.tolerance.
    """
    for pair in matches:
        pair.check(nz)
    spacing = config.node_spacing_px
    grid = (nz, *node_grid(canvas_yx, spacing))
    gone = set(missing)
    order = sorted(range(len(matches)), key=lambda k: (matches[k].z, matches[k].d))
    used = [k for k in order if not {matches[k].z, matches[k].z - matches[k].d} & gone]
    links = [matches[k].links(match_spacing_px) for k in used]
    stiffness = cell_stiffness(grid, stiffness_map, config)
    free, start = _held(grid, config, held or {})

    def energy() -> StackEnergy:
        return StackEnergy(
            *(links, grid, match_spacing_px, config),
            stiffness=stiffness,
            free=free,
            threads=threads,
        )

    minimum = minimise(energy(), held=start)
    flipped = np.zeros(stiffness.shape, bool)
    for _ in range(REPAIR_ROUNDS):
        folding = folding_cells(_float32(minimum.u), spacing)
        if not folding.any():
            break
        flipped |= folding
        stiffness[cells_to_stiffen(folding)] *= REPAIR_FACTOR
        minimum = minimise(energy(), minimum.u, reference=minimum.reference)

    parts, tied = connected_parts([(pair.z, pair.d) for pair in links if pair.weight.any()], nz)
    solved = _float32(minimum.u)
    push = np.stack([bridged(z, solved.__getitem__, tied) for z in range(nz)])
    flipped |= folding_cells(push, spacing)
    push = np.stack([unfold(section, spacing) for section in push])
    pulls = [published(section, spacing) for section in push]
    u = push.astype(np.float64)
    return Relaxed(
        push=push,
        field=np.stack(pulls),
        sigma=estimate_sigma(energy(), u, match_spacing_px, parts, tied),
        residual_px=_residuals(
            matches, dict(zip(used, links, strict=True)), u, spacing, match_spacing_px
        ),
        minimum=minimum,
        flipped_repaired=int(np.count_nonzero(flipped)),
        bridged=tuple(sorted(set(range(nz)) - set(tied))),
        parts=tuple(parts),
    )


def _held(
    grid: tuple[int, int, int], config: RelaxConfig, held: Mapping[int, Field]
) -> tuple[NDArray[np.float32] | None, Vector | None]:
    """Return 1 where nodes are free and 0 where not, and where those are held; None if all are."""
    nz, ny, nx = grid
    if config.locked and max(config.locked) >= nz:
        raise ConfigError(
            f"relax.locked names section {max(config.locked)}, but the stack has {nz}"
        )
    if not (config.locked or held):
        return None, None
    free = np.ones(grid, np.float32)
    start = np.zeros((nz, 2, ny, nx))
    free[list(config.locked)] = 0
    for z, field in held.items():
        if field.shape != (2, ny, nx):
            raise ShapeError(
                f"the field that section {z} is held by must have shape {(2, ny, nx)}, the nodes "
                f"of the canvas; got {field.shape}"
            )
        free[z], start[z] = 0, field
    return free, start


def _residuals(
    matches: Sequence[PairMatches],
    used: Mapping[int, Links],
    u: Vector,
    spacing: int,
    match_spacing_px: int,
) -> tuple[Stack, ...]:
    """Length of the residual of every match, by pair; NaN where none was used."""
    return tuple(
        residual_lengths(used[k], u[pair.z], u[pair.z - pair.d], spacing, match_spacing_px)
        if k in used
        else np.full(pair.displacement.shape[1:], np.nan, np.float32)
        for k, pair in enumerate(matches)
    )


def residual_lengths(
    links: Links, moving: Vector, fixed: Vector, spacing: int, match_spacing_px: int
) -> NDArray[np.float32]:
    """Length (my, mx) of the residual of every match, px; NaN where it weighs nothing."""
    y, x = residual(
        links, moving, fixed, node_spacing_px=spacing, match_spacing_px=match_spacing_px
    )
    return np.where(links.weight > 0, np.hypot(y, x), np.nan).astype(np.float32)


def _float32(u: Vector) -> Stack:
    return u.astype(np.float32)


def folding_cells(push: Stack, spacing: int) -> NDArray[np.bool_]:
    """Return the cells (nz, ny - 1, nx - 1) of push fields that fold, or are about to."""
    return np.stack([flipped_cells(section, spacing, least=_LEAST_AREA) for section in push])


def cells_to_stiffen(folding: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return cells (nz, ny - 1, nx - 1) that fold and those around them.

    A stiff cell alone would hand the fold on to its neighbour.
    """
    return np.asarray(binary_dilation(folding, np.ones((1, 3, 3)), iterations=2))


def unfold(field: Field, spacing: int) -> Field:
    """Smooth a field around cells that flip, wider and wider, until none does."""
    for attempt in range(_SMOOTHING_ROUNDS):
        folding = flipped_cells(field, spacing, least=_LEAST_AREA)
        if not folding.any():
            return field
        nodes = np.pad(folding, ((0, 1), (0, 1)))  # the first corner of every such cell
        nodes = binary_dilation(nodes, np.ones((3, 3)), iterations=2 + attempt // 10)
        field = np.where(nodes, uniform_filter(field, (0, 3, 3), mode="nearest"), field)
    raise ConvergenceError(
        f"{np.count_nonzero(folding)} cells of a field stay flipped; raise relax.stiffness or "
        "relax.node_spacing_px"
    )


def connected_parts(ends: Collection[tuple[int, int]], nz: int) -> tuple[list[int], list[int]]:
    """Return the part of every section, and the sections that matches tie.

    `ends` are the pairs (z, d) that have matches.
    """
    moving = np.array([z for z, _ in ends], int)
    fixed = np.array([z - d for z, d in ends], int)
    graph = sparse.coo_array((np.ones(len(ends)), (moving, fixed)), shape=(nz, nz))
    _, parts = connected_components(graph, directed=False)
    return parts.tolist(), sorted({*moving.tolist(), *fixed.tolist()})


def bridged(z: int, push: Callable[[int], Field], tied: Sequence[int]) -> Field:
    """Return a section's push field: of one without matches, from the nearest tied ones in z."""
    if z in tied or not tied:
        return push(z)
    low = max((k for k in tied if k < z), default=tied[0])
    high = min((k for k in tied if k > z), default=tied[-1])
    share = np.float32((z - low) / (high - low)) if high > low else np.float32(0)
    return np.asarray(push(low) * (1 - share) + push(high) * share, np.float32)


def published(push: Field, spacing: int) -> Field:
    """Return the pull field of a push field that does not fold, rounded to 1/32 px."""
    return quantise(unfold(invert(push, spacing), spacing))


def cell_stiffness(
    grid: tuple[int, int, int], factors: NDArray[np.float32] | None, config: RelaxConfig
) -> NDArray[np.float32]:
    cells = (grid[0], grid[1] - 1, grid[2] - 1)
    if factors is None:
        return np.full(cells, config.stiffness, np.float32)
    if factors.shape != cells:
        raise ShapeError(
            f"stiffness_map must have one value a cell, shape {cells} for nodes {grid}; "
            f"got {factors.shape}"
        )
    if not (np.isfinite(factors).all() and (factors > 0).all()):
        raise DataError("stiffness_map must be finite and above 0; use 0.01 where tissue is torn")
    return np.asarray(config.stiffness * factors, np.float32)
