"""Curves of a study as pictures: loss by epochs, by samples and by seconds.

A line is the mean over seeds, a band goes from their lowest to their highest. Solid lines are
training losses, dashed ones those of held-out samples. No picture shows a voxel of the data.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from alignment.learning.study.collect import Curves, Kind, Values, by_kind, name_of
from alignment.learning.study.compare import AXES, HELD_OUT_LOSS, LOSS, Axis, Measure, curve
from inference.model_file import replace_file

TITLES: dict[Axis, str] = {
    "epoch": "epochs", "samples": "samples of all workers", "seconds": "seconds of steps",
}  # fmt: skip
ALL = "all.png"
COLOURS = {
    "local": ("#222222",),
    "mirrored": ("#b8dfcf", "#5fb898", "#00845a"),
    "sync": ("#a6c8e8", "#4f94cd", "#0b4f8a"),
    "async": ("#f5bf8a", "#e68a2e", "#b04a00"),
}
"""Of each mode, lighter for fewer workers; they stay apart for those who confuse red and green."""


def draw_study(folder: Path, studied: Sequence[Curves]) -> list[Path]:
    """Draw the study's pictures into a folder and return them.

    The asynchronous and the synchronous training of the most workers each have one, and all kinds
    together: what figures 11 to 13 of the published study are.
    """
    kinds = by_kind(studied)
    drawn = []
    for mode in ("async", "sync"):
        most = max((kind for kind in kinds if kind[0] == mode), default=None)
        if most is not None:
            drawn.append(_save(_of_one(most, kinds[most]), folder / f"{name_of(most)}.png"))
    return [*drawn, _save(_of_all(kinds), folder / ALL)]


def _of_one(kind: Kind, some: Sequence[Curves]) -> Figure:
    """Return training and held-out losses of one kind."""
    figure = Figure(figsize=(11, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    colour = COLOURS[kind[0]][-1]
    for panel, axis in zip(figure.subplots(1, 3, sharey=True), AXES, strict=True):
        for measure, line, shade in ((LOSS, "-", 1.0), (HELD_OUT_LOSS, "--", 0.7)):
            _band(panel, some, measure, axis, line=line, colour=colour, shade=shade,
                  label=measure.title)  # fmt: skip
        panel.set(xlabel=TITLES[axis])
    _finish(figure, name_of(kind))
    return figure


def _of_all(kinds: Mapping[Kind, Sequence[Curves]]) -> Figure:
    """Return training losses of all kinds, and below them held-out ones."""
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    FigureCanvasAgg(figure)
    rows = figure.subplots(2, 3, sharey="row", sharex="col")
    for panels, measure, line in zip(rows, (LOSS, HELD_OUT_LOSS), ("-", "--"), strict=True):
        for panel, axis in zip(panels, AXES, strict=True):
            for kind, some in kinds.items():
                colour = _colour(kind, kinds)
                _band(panel, some, measure, axis, line=line, colour=colour, label=name_of(kind))
        panels[0].set(ylabel=measure.title)
    for panel, axis in zip(rows[-1], AXES, strict=True):
        panel.set(xlabel=TITLES[axis])
    _finish(figure, "")
    return figure


def _colour(kind: Kind, kinds: Mapping[Kind, Sequence[Curves]]) -> str:
    """Return a kind's colour: the darkest for the most workers of its mode."""
    shades = COLOURS[kind[0]]
    counts = sorted(workers for mode, workers in kinds if mode == kind[0])
    place = counts.index(kind[1]) - len(counts)
    return shades[max(place, -len(shades))]


def _band(
    panel: Axes,
    some: Sequence[Curves],
    measure: Measure,
    axis: Axis,
    *,
    line: str,
    colour: str,
    label: str,
    shade: float = 1.0,
) -> None:
    """Draw the mean over seeds, and from their lowest to their highest."""
    at, values = stacked(some, measure, axis)
    panel.plot(at, values.mean(0), line, color=colour, label=label, linewidth=1.4, alpha=shade)
    if len(values) > 1:
        panel.fill_between(
            at, values.min(0), values.max(0), color=colour, alpha=0.15 * shade, linewidth=0
        )


def stacked(some: Sequence[Curves], measure: Measure, axis: Axis) -> tuple[Values, Values]:
    """Return where the values of all seeds stand, in the mean, and a row of values for each.

    From the first epoch on, since a network that has learned nothing may be wrong by far, to the
    last that all have; seconds differ between seeds, and samples may.
    """
    found = [curve(each, measure, axis) for each in some]
    kept = slice(0 if measure.of_epoch else 1, min(len(at) for at, _ in found))
    places = np.array([at[kept] for at, _ in found])
    return places.mean(0), np.array([values[kept] for _, values in found])


def _finish(figure: Figure, title: str) -> None:
    panels = figure.axes
    for panel in panels:
        panel.grid(color="0.9", linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].legend(fontsize="small", frameon=False)
    if title:
        panels[0].set(ylabel="loss")
        figure.suptitle(title, fontsize="medium")


def _save(figure: Figure, path: Path) -> Path:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=100, metadata={"Software": None})
    replace_file(path, stream.getvalue())
    return path
