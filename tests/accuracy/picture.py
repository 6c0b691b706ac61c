"""The picture of docs/accuracy.md: false matches against coverage, a line a filter."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from tests.accuracy.measures import Rates

_LEAST_PERCENT = 0.01  # shares below this, 0 among them, are drawn here


def draw(path: Path, swept: dict[tuple[str, str], dict[str, list[Rates]]]) -> None:
    """Draw the curves of every (truth, recipe), all sets together."""
    figure = Figure(figsize=(9.5, 3.4 * ((len(swept) + 1) // 2)), layout="constrained")
    rows = (len(swept) + 1) // 2
    panels = figure.subplots(rows, 2, squeeze=False).ravel()
    for panel, ((truth, recipe), filters) in zip(panels, swept.items(), strict=False):
        for name, points in filters.items():
            every = name == "all together"
            panel.plot(
                [100 * point.coverage for point in points],
                [max(100 * point.false, _LEAST_PERCENT) for point in points],
                marker="o",
                markersize=4 if every else 2.5,
                linewidth=2.5 if every else 1.0,
                color="black" if every else None,
                label=name,
            )
        panel.axhline(0.1, color="0.6", linewidth=0.8, linestyle="--")
        panel.axvline(95, color="0.6", linewidth=0.8, linestyle="--")
        panel.set(yscale="log", title=f"{truth}, {recipe}", xlim=(40, 101))
        panel.set(xlabel="nodes on tissue that keep their match, %")
        panel.set(ylabel=f"false, % (0 is drawn at {_LEAST_PERCENT})")
    for panel in panels[len(swept) :]:
        panel.set_axis_off()
    if swept:
        panels[0].legend(fontsize="x-small", loc="lower left")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)
