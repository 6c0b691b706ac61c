"""Insertion: place a few sections of a stack while all others stay where they are.

When a section of an aligned volume is imaged again, or new ones come, the others must not move: all
that was computed of them would have to be computed again. The new ones are placed by robust least
squares as in `alignment.placement`, with the poses of the others held.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from alignment.affines import Affine, invert_affine
from alignment.config import CoarseConfig
from alignment.placement import StackSolution, check_pairs, parts_of, rounded_affine
from alignment.posefit import CYCLE, PairAffine, PairLinks, relaxed_poses
from alignment.poses import Frame, interpolated

Poses = NDArray[np.float64]


def insert_sections(
    pairs: Mapping[tuple[int, int], PairAffine],
    known: Mapping[int, Affine],
    nz: int,
    shape_yx: tuple[int, int],
    missing: Collection[int],
    config: CoarseConfig,
    *,
    rejected: Collection[tuple[int, int]] = (),
) -> StackSolution:
    """Place the sections of a stack that are not known yet.

    Each section's first pose is the one that most of its pairs with placed sections suggest; then
    all of them are relaxed together, as by `alignment.placement.solve_stack`, which see.

    Parameters
    ----------
    pairs : mapping of (z, d) to PairAffine
        Moving section z against fixed section z - d; also those between known sections.
    known : mapping of z to float64 ndarray of shape (2, 3)
        Coarse transforms that stay, common frame to section, px at mip 0. At least one.
    nz, shape_yx, missing, config
        As for `solve_stack`.
    rejected : collection of (z, d)
        Pairs between known sections that were out-voted when these were placed.

    Returns
    -------
    StackSolution
        Its matrices of known sections are the given ones, bit for bit. A section without a pair to
        a placed one is interpolated from its neighbours.
    """
    check_pairs(pairs, nz, shape_yx)
    frame = Frame(shape_yx)
    present = [z for z in range(nz) if z not in missing]
    links = PairLinks(pairs, present, frame)
    poses = np.tile(frame.identity, (len(present), 1, 1))
    held = np.array([z in known for z in present], bool)
    for i, z in enumerate(present):
        if held[i]:
            poses[i] = frame.pose(invert_affine(known[z]))
    poses, placed = _suggested(poses, held, links, frame)
    kept = np.array([key not in set(rejected) for key in links.keys], bool)
    asked = _touching(pairs, present, held, placed)
    if asked:
        few = PairLinks(asked, present, frame)
        poses, believed = relaxed_poses(poses, few, frame, config.rigidity, held=held | ~placed)
        wrong = {key for key, is_kept in zip(few.keys, believed, strict=True) if not is_kept}
        kept &= np.array([key not in wrong for key in links.keys], bool)
    parts = parts_of(links, kept, len(present))
    tied = {i for part in parts if len(part) > 1 for i in part}
    there = {z: poses[i] for i, z in enumerate(present) if placed[i]}
    there |= {z: frame.pose(invert_affine(matrix)) for z, matrix in known.items() if z in missing}
    matrices = [
        known[z]
        if z in known
        else rounded_affine(invert_affine(frame.push(interpolated(there, z, frame))))
        for z in range(nz)
    ]
    return StackSolution(
        matrices=np.array(matrices).reshape(nz, 2, 3),
        residual_px=dict(zip(links.keys, links.residual_px(poses).tolist(), strict=True)),
        rejected=tuple(key for key, is_kept in zip(links.keys, kept, strict=True) if not is_kept),
        bridged=tuple(sorted(set(range(nz)) - {present[i] for i in tied})),
        parts=tuple(tuple(present[i] for i in part) for part in parts if len(part) > 1),
    )


def _suggested(
    poses: Poses, held: NDArray[np.bool_], links: PairLinks, frame: Frame
) -> tuple[Poses, NDArray[np.bool_]]:
    """Return first poses of the sections that pairs lead to, and which sections are placed."""
    poses, placed = poses.copy(), held.copy()
    while True:
        best: tuple[float, int, Affine] | None = None
        for i in np.flatnonzero(~placed).tolist():
            to_placed = np.flatnonzero(
                ((links.moving == i) & placed[links.fixed])
                | ((links.fixed == i) & placed[links.moving])
            )
            found = [
                links.suggestion(int(k), poses, frame, of_fixed=links.fixed[k] == i)[1]
                for k in to_placed
            ]
            votes = _votes(found, links.weight[to_placed], frame)
            if votes.size and (best is None or votes.max() > best[0]):
                best = float(votes.max()), i, found[int(votes.argmax())]
        if best is None:
            return poses, placed
        _, i, poses[i] = best
        placed[i] = True


def _votes(
    found: Sequence[Affine], weight: NDArray[np.float64], frame: Frame
) -> NDArray[np.float64]:
    """Return, for each suggested pose, the weight of those that agree with it, its own included."""
    corners = np.array(found).reshape(-1, 2, 3)
    apart = np.sqrt(np.square(corners[:, None] - corners[None]).sum(axis=(2, 3)))
    return np.asarray((apart <= CYCLE * frame.radius_px) @ weight)


def _touching(
    pairs: Mapping[tuple[int, int], PairAffine],
    present: Sequence[int],
    held: NDArray[np.bool_],
    placed: NDArray[np.bool_],
) -> dict[tuple[int, int], PairAffine]:
    """Return the pairs that say where a section lies that is placed and not held."""
    there = {z for z, is_placed in zip(present, placed, strict=True) if is_placed}
    asked = {z for z, is_held in zip(present, held, strict=True) if not is_held} & there
    return {
        (z, d): pair for (z, d), pair in pairs.items() if {z, z - d} <= there and asked & {z, z - d}
    }
