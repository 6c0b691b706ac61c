"""Unlinked: sections for whose place nothing speaks but their number."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from alignment.findings import Finding

_SHOWN = 6  # sections that were compared in vain


def find_unlinked(
    parts: Iterable[Sequence[int]],
    sections: Sequence[int],
    compared: Collection[tuple[int, int]],
    explained: Collection[int] = (),
) -> list[Finding]:
    """Name the sections that no believable pair links to most of the others.

    Parameters
    ----------
    parts : iterable of sequences of int
        Sections that hold together by pairs; overlapping parts are one.
    sections : sequence of int
        All sections that are there, ascending.
    compared : collection of (z, d)
        Pairs that were compared, for the message.
    explained : collection of int
        Sections about which more is known; a part that is all explained is not named.

    Returns
    -------
    list of Finding
        By ascending z; empty if all hold together, or if there is but one section.
    """
    groups = [{z} for z in sections]
    for part in parts:
        joined = set(part).intersection(sections)
        touching = [group for group in groups if group & joined]
        groups = [group for group in groups if not group & joined]
        groups.append(joined.union(*touching))
    ranked = sorted((sorted(group) for group in groups if group), key=lambda g: (-len(g), g[0]))
    found = []
    # Where no two sections hold together, not one of them is better than the others.
    alone = ranked[1:] if ranked and len(ranked[0]) > 1 else ranked
    for group in alone if len(sections) > 1 else []:
        inside = set(group)
        if inside <= set(explained):
            continue
        tried = sorted(
            {other for z, d in compared for other in (z, z - d) if len({z, z - d} & inside) == 1}
            - inside
        )
        shown = ", ".join(map(str, tried[:_SHOWN])) + (" and others" if len(tried) > _SHOWN else "")
        detail = f"no believable match with {shown}; placed by what is usual in the stack"
        found.append(Finding("unlinked", tuple(group), 1.0, (), detail))
    return sorted(found, key=lambda finding: finding.sections)
