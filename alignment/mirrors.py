"""Mirrors: sections that were picked up or scanned the wrong side up.

A mirrored section fits no other one by turning and shifting, but its mirror image does. Which of
two sections is the mirrored one, their pair does not tell: in each group of linked sections, those
that are fewer are called mirrored. Their coarse transforms have a negative determinant, so all
later stages see them the right way round.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from alignment.affines import Affine, compose_affines
from alignment.posefit import PairAffine

Key = tuple[int, int]
"""(z, d): section z against section z - d."""

_SURE_LINKS = 2  # a mirrored section may resemble one other section by chance, hardly two


def mirror(width_px: float) -> Affine:
    """Return the affine that mirrors a section left to right; it undoes itself.

    >>> mirror(100).tolist()
    [[1.0, 0.0, 0.0], [0.0, -1.0, 99.0]]
    """
    return np.array([[1.0, 0, 0], [0, -1, width_px - 1]])


def is_mirroring(matrix: Affine) -> bool:
    """Return whether an affine turns left into right."""
    return bool(np.linalg.det(matrix[:, :2]) < 0)


def pairs_to_mirror(
    compared: Sequence[Key], found: Collection[Key], sections: Sequence[int]
) -> list[Key]:
    """Return the pairs that are worth comparing once more with one section mirrored.

    Where pairs link all sections, each by two pairs or more, there is nothing to explain. Else it
    is the pairs between groups of linked sections, and all pairs of a section with a single link,
    which may be a chance; `more_alike` then chooses.

    Parameters
    ----------
    compared : sequence of (z, d)
        Pairs that were compared as they are.
    found : collection of (z, d)
        Those that fit.
    sections : sequence of int
        All sections that are there.
    """
    groups = _Groups(sections)
    links = Counter(end for z, d in found for end in (z, z - d))
    for z, d in found:
        groups.join(z - d, z, is_mirrored=False)
    return [
        (z, d)
        for z, d in compared
        if groups.find(z)[0] != groups.find(z - d)[0] or min(links[z], links[z - d]) < _SURE_LINKS
    ]


def more_alike(
    plain: Mapping[Key, PairAffine], mirrored: Mapping[Key, PairAffine]
) -> dict[Key, PairAffine]:
    """Return all pairs; of one that was found both plain and mirrored, that of higher score."""
    return dict(plain) | {
        key: pair
        for key, pair in mirrored.items()
        if key not in plain or pair.score > plain[key].score
    }


def mirrored_sections(pairs: Mapping[Key, PairAffine]) -> tuple[int, ...]:
    """Return the sections that are mirrored against most of those they are linked to.

    Pairs of higher score are believed first, so a chance match does not turn sections over. Of two
    equally many, those with the first section of all are called plain.
    """
    sections = sorted({z for z, _ in pairs} | {z - d for z, d in pairs})
    groups = _Groups(sections)
    for (z, d), pair in sorted(pairs.items(), key=lambda item: (-item[1].score, item[0])):
        groups.join(z - d, z, is_mirrored=is_mirroring(pair.matrix))
    members: dict[int, tuple[list[int], list[int]]] = {}
    for z in sections:
        root, is_odd = groups.find(z)
        members.setdefault(root, ([], []))[is_odd].append(z)
    mirrored = []
    for even, odd in members.values():
        is_even_plain = (len(even), -min(even)) > (len(odd), -min(odd)) if odd else True
        mirrored += odd if is_even_plain else even
    return tuple(sorted(mirrored))


def mirrored_beside(pairs: Mapping[Key, PairAffine], known: Mapping[int, bool]) -> dict[int, bool]:
    """Return which sections are mirrored, among those whose answer is known and stays.

    Pairs of higher score are believed first. Sections that no chain of pairs leads to are taken to
    be the right side up.

    Parameters
    ----------
    pairs : mapping of (z, d) to PairAffine
    known : mapping of z to bool
    """
    answer = dict(known)
    waiting = sorted(pairs.items(), key=lambda item: (-item[1].score, item[0]))
    while True:
        for (z, d), pair in waiting:
            ends = {z, z - d}
            if len(unknown := ends - answer.keys()) == 1:
                (told,) = ends & answer.keys()
                answer[unknown.pop()] = answer[told] != is_mirroring(pair.matrix)
                break
        else:
            rest = {end for z, d in pairs for end in (z, z - d)} - answer.keys()
            return answer | dict.fromkeys(rest, False)


def unmirrored(
    pairs: Mapping[Key, PairAffine], mirrored: Collection[int], width_px: int
) -> dict[Key, PairAffine]:
    """Return the pairs as they would be, had the sections not been mirrored.

    Pairs that contradict that, whose affine would still mirror, are left out.
    """
    turn = mirror(width_px)
    plain = {}
    for (z, d), pair in pairs.items():
        matrix = pair.matrix
        if z in mirrored:
            matrix = compose_affines(turn, matrix)
        if z - d in mirrored:
            matrix = compose_affines(matrix, turn)
        if not is_mirroring(matrix):
            plain[z, d] = replace(pair, matrix=matrix)
    return plain


def mirrored_again(
    matrices: NDArray[np.float64], mirrored: Iterable[int], width_px: int
) -> NDArray[np.float64]:
    """Return the coarse transforms (nz, 2, 3) of the sections as they really are."""
    result = matrices.copy()
    for z in mirrored:
        result[z] = compose_affines(mirror(width_px), matrices[z])
    return result


class _Groups:
    """Linked sections, and which of them are mirrored against the first of their group."""

    def __init__(self, sections: Iterable[int]) -> None:
        self._parent = {z: (z, False) for z in sections}
        self._size = dict.fromkeys(self._parent, 1)

    def find(self, z: int) -> tuple[int, bool]:
        """Return the group of a section, and whether it is mirrored against that group's name."""
        parent, is_odd = self._parent[z]
        if parent == z:
            return z, False
        root, is_parent_odd = self.find(parent)
        self._parent[z] = root, is_odd != is_parent_odd
        return self._parent[z]

    def join(self, a: int, b: int, *, is_mirrored: bool) -> None:
        """Link two sections; of a group that is linked already nothing changes."""
        (root_a, is_odd_a), (root_b, is_odd_b) = self.find(a), self.find(b)
        if root_a == root_b:
            return
        if self._size[root_a] < self._size[root_b]:
            root_a, root_b = root_b, root_a
        self._size[root_a] += self._size[root_b]
        self._parent[root_b] = root_a, (is_odd_a != is_odd_b) != is_mirrored
