"""Repeats: sections that are in the stack twice, told by their likeness.

A copy of a picture shares its noise. A section recorded again does not, but what separates the two
pictures is far less than what separates sections.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from alignment.findings import Finding
from alignment.likeness import Likeness

_ALIKE = 0.35  # of what separates neighbours: less separates two pictures of one section
_SAME_GRAIN = 0.9
_LEAST_NEIGHBOURS = 4  # pairs that tell what is usual


def find_duplicates(
    likeness: Mapping[tuple[int, int], Likeness], sections: Sequence[int]
) -> list[Finding]:
    """Name pairs of sections that show the same.

    Parameters
    ----------
    likeness : mapping of (z, d) to Likeness
        Of sections z and z - d; any pairs, but what is usual is told by direct neighbours.
    sections : sequence of int
        The sections that are there, ascending.

    Returns
    -------
    list of Finding
        Kind "duplicated", sections (original, copy), by ascending copy.
    """
    known = set(sections)
    pairs = {key: p for key, p in likeness.items() if key[0] in known and key[0] - key[1] in known}
    after = dict(pairwise(sections))
    links = {a: pairs[b, b - a].tissue for a, b in after.items() if (b, b - a) in pairs}
    before = {b: links[a] for a, b in after.items() if a in links}
    middle = float(np.median(list(links.values()))) if links else 0.0
    found: dict[int, Finding] = {}
    for (z, d), pair in sorted(pairs.items()):
        is_copy = pair.grain >= _SAME_GRAIN
        # Two good sections are alike as well, but then so are they and their other neighbours.
        usual = 1 - max(middle, before.get(z - d, 0.0), links.get(z, 0.0))
        is_again = len(links) >= _LEAST_NEIGHBOURS and 1 - pair.tissue < _ALIKE * usual
        if z - d in found or not (is_copy or is_again):
            continue
        detail = "the same picture" if is_copy else "the same tissue, recorded again"
        score = pair.grain if is_copy else 1 - (1 - pair.tissue) / max(usual, 1e-9)
        if z not in found or found[z].score < score:
            found[z] = Finding("duplicated", (z - d, z), round(score, 4), (), detail)
    return [found[z] for z in sorted(found)]
