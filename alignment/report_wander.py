"""What the report tells of wander: two charts over the stack, and the numbers below them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from alignment import figures
from alignment.wander import QUANTITIES, WINDOW_SECTIONS, Wander

_WORDS = {"dy": "along y", "dx": "along x", "turn": "turning", "growth": "growth"}


class WanderChart(NamedTuple):
    """One chart, with the words of its two smoothed lines."""

    title: str
    lines: tuple[str, str]
    picture: Markup


def charts(wander: Wander | None, bridged: Sequence[int]) -> list[WanderChart]:
    """Draw the smoothed lines over the unsmoothed values; nothing for fewer than two sections."""
    if wander is None or len(wander.moved) - len(bridged) < 2:
        return []
    return [
        _chart(wander, "Mean displacement of each section", ("dy", "dx"), bridged),
        _chart(wander, "What turning and growth move at its corner", ("turn", "growth"), bridged),
    ]


def _chart(
    wander: Wander, title: str, names: tuple[str, str], bridged: Sequence[int]
) -> WanderChart:
    first, second = (QUANTITIES.index(name) for name in names)
    words = _WORDS[names[0]], _WORDS[names[1]]
    lines = [
        figures.Series(words[0], wander.moved[:, first].tolist(), "faint"),
        figures.Series(words[1], wander.moved[:, second].tolist(), "faint"),
        figures.Series(f"{words[0]}, smoothed", wander.slow[:, first].tolist(), "after"),
        figures.Series(f"{words[1]}, smoothed", wander.slow[:, second].tolist(), "before"),
    ]
    alt = f"{title}: {', '.join(line.label for line in lines)}"
    z = range(len(wander.moved))
    return WanderChart(title, words, figures.line_chart(alt, z, lines, y_label="px", gaps=bridged))


def as_dict(wander: Wander | None) -> dict[str, Any] | None:
    """Return the numbers for machines."""
    if wander is None:
        return None
    return {
        "window_sections": WINDOW_SECTIONS,
        "peak_to_peak_px": wander.peak_to_peak_px,
        **{name: wander.slow[:, k].round(4).tolist() for k, name in enumerate(QUANTITIES)},
    }
