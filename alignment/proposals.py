"""Proposals: where one section might lie on another, before anything is known about them.

Two searches, each strong where the other is weak. `rotation_search` correlates small images at
every angle: it uses all of the picture, so it finds resemblance that is too faint for any single
landmark, but it does not try other scales. `feature_search` matches landmarks: it needs clear ones,
but finds them at any scale.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from alignment.affines import Affine, apply_affine, compose_affines, invert_affine
from alignment.bilinear import Points
from alignment.features import LIMIT
from alignment.views import Correlator, View, pull

DECISIVE = 9.0
"""Significance that needs no second opinion; see `coarse.MIN_SIGNIFICANCE`."""

_NEAR_DEG = 12.0  # most sections are hardly turned: look there first
_EDGE_STEP_PX = 4.0  # of the image's edge from one angle to the next
_APART = 0.12  # of the section's side; proposals nearer than this are the same one
_KEPT = 3

_FEATURES = 2000
_CONTRAST = 0.02
_BEST_TO_SECOND = 0.85
_FEATURE_TOLERANCE = 0.02  # of the section's side
_HYPOTHESES = 4000
_LEAST_FEATURES = 4


class Proposal(NamedTuple):
    """A place of the moving section on the fixed one."""

    matrix: Affine
    """Takes px of the fixed section to px of the moving one."""
    strength: float
    """Best first: the peak over the noise, or the number of features that agree."""
    is_inverted: bool
    """The two have opposite contrast."""
    method: str


def rotation_search(fixed: View, moving: View, *, max_rotation_deg: float) -> list[Proposal]:
    """Propose rotations and shifts by correlation at every angle, best first, at most three.

    Angles near zero are tried first; the others only if none of those is `DECISIVE`. Peaks of
    either sign count, so a section of inverted contrast is found as well. A change of scale of 7 %
    is survived, of 12 % seldom.

    References
    ----------
    .. [1] C. D. Kuglin, D. C. Hines, "The phase correlation image alignment method", ICCS 1975;
       here with half of the whitening, which suits images that resemble each other faintly.
    """
    side = math.ceil(math.hypot(*moving.image.shape))
    centre = (np.array(moving.image.shape) - 1) / 2
    steps = 4 * math.ceil(math.pi * max(moving.image.shape) / _EDGE_STEP_PX / 4)
    angles = [k * 360 / steps for k in range(-steps // 2, steps // 2)]
    angles = sorted((a for a in angles if abs(a) <= max_rotation_deg), key=lambda a: (abs(a), a))
    correlator = Correlator(fixed, (side, side))
    area = float(np.count_nonzero(moving.valid))
    valid = moving.valid.astype(np.float32)

    def peaks(degrees: Iterable[float]) -> Iterable[Proposal]:
        for angle in degrees:
            turn = _turn(math.radians(angle), np.full(2, (side - 1) / 2), centre)
            surface = correlator(
                pull(moving.image, turn, (side, side)), pull(valid, turn, (side, side)), area
            )
            for is_inverted, index in ((False, surface.argmax()), (True, surface.argmin())):
                dy, dx = correlator.shift(int(index))
                shift = np.array([[1.0, 0, -dy], [0, 1, -dx]])
                yield Proposal(
                    _to_section(compose_affines(turn, shift), fixed, moving),
                    abs(float(surface.flat[index])),
                    is_inverted,
                    "correlation",
                )

    near = [a for a in angles if abs(a) <= _NEAR_DEG]
    found = list(peaks(near))
    if max((p.strength for p in found), default=0.0) < DECISIVE:
        found += peaks(angles[len(near) :])
    return _distinct(found, fixed)


def feature_search(
    fixed: View, moving: View, *, max_rotation_deg: float, max_scale_change: float
) -> list[Proposal]:
    """Propose similarities on which matching SIFT features agree, one for each contrast.

    Descriptors are compared as RootSIFT [2]_; a feature must be its match's best match too and
    clearly better than the second. Of the pairs of matches, a seeded choice proposes similarities
    within the limits of scale and rotation; the one of least truncated squared distance wins [3]_.

    References
    ----------
    .. [1] D. G. Lowe, "Distinctive image features from scale-invariant keypoints", IJCV 2004.
    .. [2] R. Arandjelovic, A. Zisserman, "Three things everyone should know to improve object
       retrieval", CVPR 2012.
    .. [3] P. H. S. Torr, A. Zisserman, "MLESAC", CVIU 2000 (its simpler form, MSAC).
    """
    points_f, features_f = _sift(fixed)
    points_m, features_m = _sift(moving)
    if min(len(points_f), len(points_m)) < 2:
        return []
    found = []
    for is_inverted in (False, True):
        # Inverting the contrast turns every gradient round, and with them the descriptor's own
        # frame: its 4 x 4 cells swap places, what is in them stays.
        cells = features_f.reshape(-1, 4, 4, 8)
        described = cells[:, ::-1, ::-1].reshape(-1, 128) if is_inverted else features_f
        left, right = _mutual_matches(described, features_m)
        tolerance = _FEATURE_TOLERANCE * max(fixed.image.shape)
        best = _consensus(
            points_f[left], points_m[right], tolerance, max_rotation_deg, max_scale_change
        )
        if best is not None:
            matrix, count = best
            proposed = _to_section(matrix, fixed, moving)
            found.append(Proposal(proposed, float(count), is_inverted, "features"))
    return sorted(found, key=lambda p: -p.strength)


def _turn(angle: float, around: NDArray[np.float64], centre: NDArray[np.float64]) -> Affine:
    """Return the rotation by `angle` (radians, from y to x) that takes `around` to `centre`."""
    c, s = math.cos(angle), math.sin(angle)
    linear = np.array([[c, -s], [s, c]])
    return np.column_stack([linear, centre - linear @ around])


def _to_section(matrix: Affine, fixed: View, moving: View) -> Affine:
    """Express an affine between views in px of the sections."""
    return compose_affines(
        invert_affine(moving.from_section), compose_affines(matrix, fixed.from_section)
    )


def _distinct(proposals: list[Proposal], fixed: View) -> list[Proposal]:
    """Return the strongest proposals that are not the same place once more."""
    ny, nx = fixed.image.shape
    to_section = invert_affine(fixed.from_section)
    corners = apply_affine(to_section, np.array([[0.0, 0], [0, nx], [ny, 0], [ny, nx]]))
    apart = _APART * float(np.ptp(corners, axis=0).max())
    kept: list[tuple[Proposal, Points]] = []
    for proposal in sorted(proposals, key=lambda p: -p.strength):
        place = apply_affine(proposal.matrix, corners)
        if all(
            other.is_inverted != proposal.is_inverted or float(np.abs(place - taken).max()) > apart
            for other, taken in kept
        ):
            kept.append((proposal, place))
        if len(kept) == _KEPT:
            break
    return [proposal for proposal, _ in kept]


def _sift(view: View) -> tuple[Points, NDArray[np.float32]]:
    """Return positions (n, 2), rows (y, x), and RootSIFT descriptors (n, 128)."""
    grey = np.rint(view.image * (127 / LIMIT) + 128).clip(0, 255).astype(np.uint8)
    # The edge of a masked area is a landmark of the damage, not of the tissue.
    inside = cv2.erode(view.valid.astype(np.uint8), np.ones((9, 9), np.uint8))
    sift = cv2.SIFT.create(nfeatures=_FEATURES, contrastThreshold=_CONTRAST)
    found, descriptors = sift.detectAndCompute(grey, inside)
    if descriptors is None:
        return np.zeros((0, 2)), np.zeros((0, 128), np.float32)
    points = np.array([feature.pt[::-1] for feature in found], np.float64)
    total = np.maximum(descriptors.sum(axis=1, keepdims=True), 1e-6)
    return points, np.sqrt(descriptors / total).astype(np.float32)


def _mutual_matches(
    left: NDArray[np.float32], right: NDArray[np.float32]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pair the rows that are each other's best match and clearly better than the second."""
    cosine = left @ right.T
    rows = np.arange(len(left))
    best = cosine.argmax(axis=1)
    mutual = cosine.argmax(axis=0)[best] == rows
    nearest = cosine[rows, best]
    cosine[rows, best] = -1
    distance, second = (np.sqrt(np.maximum(1 - c, 0)) for c in (nearest, cosine.max(axis=1)))
    chosen = mutual & (distance < _BEST_TO_SECOND * second)
    return rows[chosen], best[chosen]


def _consensus(
    fixed: Points,
    moving: Points,
    tolerance: float,
    max_rotation_deg: float,
    max_scale_change: float,
) -> tuple[Affine, int] | None:
    """Return the similarity on which most matches agree, and how many do."""
    # A similarity of the plane is s * z + t in complex numbers; its angle runs from y to x.
    f, m = (points[:, 0] + 1j * points[:, 1] for points in (fixed, moving))
    i, j = np.triu_indices(len(f), 1)
    far = np.abs(f[i] - f[j]) > 4 * tolerance
    i, j = i[far], j[far]
    s = (m[i] - m[j]) / (f[i] - f[j])
    allowed = np.abs(np.abs(s) - 1) <= max_scale_change
    allowed &= np.abs(np.angle(s)) <= math.radians(max_rotation_deg)
    i, s = i[allowed], s[allowed]
    if len(i) > _HYPOTHESES:
        chosen = np.random.default_rng(0).permutation(len(i))[:_HYPOTHESES]
        i, s = i[chosen], s[chosen]
    if len(i) == 0:
        return None
    t = m[i] - s * f[i]
    cost = np.concatenate(
        [
            np.minimum(np.abs(a[:, None] * f + b[:, None] - m) / tolerance, 1.0) ** 2
            @ np.ones(len(f))
            for a, b in zip(*(np.array_split(v, -(-len(i) // 256)) for v in (s, t)), strict=True)
        ]
    )
    best = int(cost.argmin())
    s_best, t_best = complex(s[best]), complex(t[best])
    count = int(np.count_nonzero(np.abs(s_best * f + t_best - m) < tolerance))
    if count < _LEAST_FEATURES:
        return None
    linear = [[s_best.real, -s_best.imag], [s_best.imag, s_best.real]]
    return np.column_stack([np.array(linear), [t_best.real, t_best.imag]]), count
