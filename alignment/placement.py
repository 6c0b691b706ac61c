"""Placement: one affine per section out of the affines between pairs of sections.

All sections are placed at once, by robust linear least squares: a chain would pass every error on
to all sections after it, and break at its first wrong link. The unknowns are the pushes G_z, which
take px of section z to the common frame. A pair (z, d) says that tissue at q of section z - d lies
at P(q) of section z, so both must land on one point::

    G_z(P(q)) = G_{z-d}(q)        at a grid of points q of the section

This is linear in the unknowns and measured in px. The coarse transforms that the rest of the
project uses are the pulls C_z = G_z^-1, ``source = C_z(common)``.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from alignment.affines import Affine, apply_affine, compose_affines, invert_affine
from alignment.config import CoarseConfig
from alignment.errors import DataError, ShapeError
from alignment.posefit import CYCLE, PairAffine, PairLinks, relaxed_poses
from alignment.poses import Frame, interpolated, moved, typical

_NEARBY = 8  # sections on each side of a gap that tell how the stack goes on
_LEAST_AREA = 1e-3
_SLACK_PX = 1e-3  # rounding must not add a row to the canvas


@dataclass(frozen=True)
class StackSolution:
    """All sections in one common frame."""

    matrices: NDArray[np.float64]
    """(nz, 2, 3): C_z takes px of the common frame to px of section z, (y, x) at mip 0."""
    residual_px: dict[tuple[int, int], float]
    """Of every pair (z, d) between sections that are not missing: root mean square, px."""
    rejected: tuple[tuple[int, int], ...]
    """Pairs (z, d) that the others out-voted."""
    bridged: tuple[int, ...]
    """Sections without any pair left, missing ones among them: interpolated."""
    parts: tuple[tuple[int, ...], ...]
    """Sections that hold together by pairs, the largest part first. Parts after the first are
    placed as if the microscope had not moved between neighbouring parts."""


def solve_stack(
    pairs: Mapping[tuple[int, int], PairAffine],
    nz: int,
    shape_yx: tuple[int, int],
    missing: Collection[int],
    config: CoarseConfig,
) -> StackSolution:
    """Place all sections of a stack in one common frame.

    Every pair counts by its score and 1 / d. Pairs that contradict the others lose their weight
    (iteratively re-weighted least squares with Tukey's biweight [1]_, from a start that most pairs
    agree on). Each section is pulled towards the nearest rigid transform [2]_, or errors of
    scale and shear would add up from section to section; turning and shifting costs nothing.

    What pairs cannot decide is settled so: the orientation and the place that most sections of the
    stack have in their own images is kept (so a few turned sections, the first one included, are
    turned to the others), and the mean scale is 1.

    Parameters
    ----------
    pairs : mapping of (z, d) to PairAffine
        Moving section z against fixed section z - d. Pairs with a missing section are ignored.
    nz : int
        Number of sections.
    shape_yx : tuple of int
        Shape of the sections, px at mip 0.
    missing : collection of int
        Sections to interpolate, without a say in anything.
    config : CoarseConfig
        ``rigidity`` is the weight of the pull against a pair of score 1 and d = 1.

    Returns
    -------
    StackSolution
        Linear parts are rounded to 2^-30 and shifts to 2^-16 px, so that equal inputs give equal
        bytes on any machine.

    Raises
    ------
    DataError
        If a pair names a section that does not exist, or is not a finite, invertible affine.

    References
    ----------
    .. [1] P. W. Holland, R. E. Welsch, "Robust regression using iteratively reweighted
       least-squares", Communications in Statistics, 1977.
    .. [2] S. Saalfeld, R. Fetter, A. Cardona, P. Tomancak, "Elastic volume reconstruction from
       series of ultra-thin microscopy sections", Nature Methods, 2012 (regularised affines).
    """
    check_pairs(pairs, nz, shape_yx)
    present = [z for z in range(nz) if z not in missing]
    frame = Frame(shape_yx)
    links = PairLinks(pairs, present, frame)
    poses = _chained(links, len(present), frame)
    poses, kept = relaxed_poses(poses, links, frame, config.rigidity)
    parts = parts_of(links, kept, len(present))
    poses = _joined(poses, parts, present, frame)
    held = [i for part in parts if len(part) > 1 for i in part]
    # With nothing to hold on to, all sections stay where their images are.
    known = {present[i]: poses[i] for i in sorted(held)} or {0: frame.identity}
    matrices = [
        rounded_affine(invert_affine(frame.push(interpolated(known, z, frame)))) for z in range(nz)
    ]
    residual_px = links.residual_px(poses)
    return StackSolution(
        matrices=np.array(matrices).reshape(nz, 2, 3),
        residual_px=dict(zip(links.keys, residual_px.tolist(), strict=True)),
        rejected=tuple(key for key, is_kept in zip(links.keys, kept, strict=True) if not is_kept),
        bridged=tuple(sorted(set(range(nz)) - {present[i] for i in held})),
        parts=tuple(tuple(present[i] for i in part) for part in parts if len(part) > 1),
    )


def fit_canvas(
    matrices: NDArray[np.float64], shape_yx: tuple[int, int], *, max_growth: float = 3.0
) -> tuple[NDArray[np.float64], tuple[int, int]]:
    """Move the common frame so that all sections lie at coordinates of 0 and more.

    Parameters
    ----------
    matrices : float64 ndarray of shape (nz, 2, 3)
        Coarse transforms, common frame to section, px at mip 0.
    shape_yx : tuple of int
        Shape of the sections, px at mip 0.
    max_growth : float
        Largest side of the canvas, in longer sides of a section.

    Returns
    -------
    matrices : float64 ndarray of shape (nz, 2, 3)
        The same transforms of the moved frame. It moves by whole px, which changes no sample.
    canvas_yx : tuple of int
        Shape that holds all pixels of all sections.

    Raises
    ------
    DataError
        If the canvas would be absurdly large; it names the section that reaches farthest.

    Examples
    --------
    >>> shifted = np.array([[[1.0, 0, 0], [0, 1, 0]], [[1, 0, 2.5], [0, 1, 0]]])
    >>> moved, canvas = fit_canvas(shifted, (10, 20))
    >>> moved[:, :, 2].tolist(), canvas
    ([[-3.0, 0.0], [-0.5, 0.0]], (13, 20))
    """
    ny, nx = shape_yx
    if len(matrices) == 0:
        return matrices.copy(), (ny, nx)
    corners = np.array([[0.0, 0], [0, nx - 1], [ny - 1, 0], [ny - 1, nx - 1]])
    reached = np.array([apply_affine(invert_affine(matrix), corners) for matrix in matrices])
    low, high = reached.min(axis=(0, 1)), reached.max(axis=(0, 1))
    start = np.floor(low + _SLACK_PX)
    stop = np.ceil(high - _SLACK_PX) + 1
    size = stop - start
    limit = max_growth * max(ny, nx)
    if (size > limit).any():
        middle = np.median(reached.mean(axis=1), axis=0)
        far = int(np.abs(reached - middle).max(axis=(1, 2)).argmax())
        raise DataError(
            f"the common frame would need {int(size[0])} x {int(size[1])} px (y, x) for sections "
            f"of {ny} x {nx} px; at most {limit:.0f} px a side are allowed. Section {far} lies "
            "farthest from the others: see its pairs in the records of the coarse stage; "
            "coarse.max_scale_change and coarse.max_rotation_deg refuse pairs that cannot be right"
        )
    shifted = matrices.copy()
    shifted[:, :, 2] += matrices[:, :, :2] @ start
    return shifted, (int(size[0]), int(size[1]))


def _chained(links: PairLinks, count: int, frame: Frame) -> NDArray[np.float64]:
    """Return first poses (count, 2, 3): rigid, from the most credible pairs only.

    Pairs that close a triangle with two others join sections to clusters, for wrong pairs do not.
    Of the pairs left between two clusters, those on which most agree join these.
    """
    poses = np.tile(frame.identity, (count, 1, 1))
    members = [[i] for i in range(count)]
    label = np.arange(count)

    def join(order: Iterable[int], *, once: bool) -> None:
        joined: set[int] = set()
        for k in order:
            stays, goes = int(label[links.fixed[k]]), int(label[links.moving[k]])
            if stays == goes or (once and not joined.isdisjoint((stays, goes))):
                continue
            joined.update((stays, goes))
            if len(members[stays]) < len(members[goes]):
                stays, goes = goes, stays
            here, goal = links.suggestion(k, poses, frame, of_fixed=goes == label[links.fixed[k]])
            poses[members[goes]] = moved(poses[members[goes]], poses[here], goal)
            label[members[goes]] = stays
            members[stays] += members[goes]

    by_weight = sorted(range(len(links.keys)), key=lambda k: (-links.weight[k], k))
    closed = _closed(links, frame)
    join(sorted((k for k in by_weight if closed[k]), key=lambda k: -closed[k]), once=False)
    # Joining clusters brings pairs together that can then agree, so they are counted again before
    # a cluster is joined once more.
    while (votes := _votes(links, poses, label, frame)).any():
        join((k for k in by_weight if votes[k] == votes.max()), once=True)
    return poses


def _votes(
    links: PairLinks, poses: NDArray[np.float64], label: NDArray[np.intp], frame: Frame
) -> NDArray[np.intp]:
    """Return, for each pair between two clusters, how many pairs agree with it, itself included."""
    votes = np.zeros(len(links.keys), np.intp)
    together: dict[tuple[int, int], list[int]] = {}
    for k, (f, m) in enumerate(zip(label[links.fixed], label[links.moving], strict=True)):
        if f != m:
            together.setdefault((min(f, m), max(f, m)), []).append(k)
    for (_, goes), ks in together.items():
        suggestions = [
            links.suggestion(k, poses, frame, of_fixed=label[links.fixed[k]] == goes) for k in ks
        ]
        here = poses[[section for section, _ in suggestions]]
        goal = np.array([pose for _, pose in suggestions])
        for start, end in zip(here, goal, strict=True):
            miss = np.sqrt(np.square(moved(here, start, end) - goal).sum(axis=(1, 2)))
            votes[ks] += miss <= CYCLE * frame.radius_px
    return votes


def _closed(links: PairLinks, frame: Frame) -> NDArray[np.intp]:
    """Count each pair's closed triangles: going round by three pairs ends where it began."""
    between = {
        (int(f), int(m)): k for k, (f, m) in enumerate(zip(links.fixed, links.moving, strict=True))
    }
    after: dict[int, list[int]] = {}
    for f, m in between:
        after.setdefault(f, []).append(m)
    closed = np.zeros(len(links.keys), np.intp)
    for (first, last), direct in between.items():
        for middle in after[first]:
            rest = between.get((middle, last))
            if rest is None:
                continue
            leg = between[first, middle]
            detour = compose_affines(links.matrix[rest], links.matrix[leg])
            gap = apply_affine(detour, frame.grid) - apply_affine(links.matrix[direct], frame.grid)
            if np.sqrt(np.square(gap).sum(axis=1).mean()) <= CYCLE * frame.radius_px:
                closed[[leg, rest, direct]] += 1
    return closed


def parts_of(links: PairLinks, kept: NDArray[np.bool_], count: int) -> list[list[int]]:
    """Return the sections that hold together by the kept pairs, largest part first."""
    ones = np.ones(int(kept.sum()))
    graph = coo_array((ones, (links.fixed[kept], links.moving[kept])), shape=(count, count))
    _, label = connected_components(graph, directed=False)
    parts: dict[int, list[int]] = {}
    for i, part in enumerate(label.tolist()):
        parts.setdefault(part, []).append(i)
    return sorted(parts.values(), key=lambda part: (-len(part), part[0]))


def _joined(
    poses: NDArray[np.float64], parts: list[list[int]], present: Sequence[int], frame: Frame
) -> NDArray[np.float64]:
    """Move each part as a whole: the largest to where its images are, the others to fit it.

    Between parts nothing is measured, so their images are taken to have been recorded in one
    orientation and place: what is typical of a part near the gap is made equal on both sides.
    """
    poses = poses.copy()
    z = np.array(present)
    placed: list[int] = []
    for part in parts:
        area = np.linalg.det(poses[part, :, :2]).clip(1e-12)
        poses[part] *= frame.radius_px / math.exp(float(np.log(area).mean()) / 2)
        if placed:
            gap = np.abs(z[placed][:, None] - z[part])
            theirs = np.array(placed)[np.argsort(gap.min(axis=1), kind="stable")[:_NEARBY]]
            mine = np.array(part)[np.argsort(gap.min(axis=0), kind="stable")[:_NEARBY]]
            poses[part] = moved(
                poses[part], typical(poses[mine], frame), typical(poses[theirs], frame)
            )
        else:
            poses[part] = moved(poses[part], typical(poses[part], frame), frame.identity)
        placed = sorted([*placed, *part])
    return poses


def rounded_affine(matrix: Affine) -> Affine:
    """Return an affine to 2^-30 and 2^-16 px, so that equal inputs give equal bytes anywhere."""
    steps = np.array([2.0**30, 2.0**30, 2.0**16])
    return np.rint(matrix * steps) / steps + 0.0  # -0 and 0 have different bytes


def check_pairs(
    pairs: Mapping[tuple[int, int], PairAffine], nz: int, shape_yx: tuple[int, int]
) -> None:
    """Raise unless all pairs are affines between sections of the stack; see `solve_stack`."""
    if min(shape_yx) < 1:
        raise ShapeError(f"sections must have at least one pixel, got shape {shape_yx} (y, x)")
    for (z, d), pair in pairs.items():
        if not (d >= 1 and z - d >= 0 and z < nz):
            raise DataError(
                f"pair (z={z}, d={d}) needs sections {z - d} and {z} of 0..{nz - 1}, with d >= 1"
            )
        matrix = np.asarray(pair.matrix)
        if matrix.shape != (2, 3) or not np.isfinite(matrix).all():
            raise DataError(f"pair (z={z}, d={d}): expected a finite (2, 3) matrix, got {matrix}")
        if np.linalg.det(matrix[:, :2]) < _LEAST_AREA:
            raise DataError(
                f"pair (z={z}, d={d}) mirrors or flattens the section: {matrix.tolist()}; the rows "
                "and columns of an affine are in the order (y, x)"
            )
