"""Where a point of the source lies in the aligned volume, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from alignment.driving.kinds import ALIGNMENT, kind_of
from alignment.errors import ConfigError, DataError
from alignment.fields import Affine, Field, Points, map_to_aligned, map_to_source
from alignment.runs import Run, load
from alignment.stages import inputs
from storage.ledger import read_state
from storage.publish import read_pointer
from storage.store import exists, join, list_names, normalise_uri
from storage.volume import open_array


def find_run(uri: str, *, any_kind: bool = False) -> str:
    """Return the run that `uri` means: a run itself, or a volume's published or only run.

    Parameters
    ----------
    any_kind : bool
        Predictions too.

    Raises
    ------
    DataError
        If there is none, or several of which none is published; or one of another kind.
    """
    run_uri = _found(uri)
    if not any_kind and kind_of(run_uri) != ALIGNMENT:
        raise DataError(
            f"{run_uri} is a {kind_of(run_uri)}, not a run that aligns sections; read it with "
            "storage.open_prediction"
        )
    return run_uri


def _found(uri: str) -> str:
    where = normalise_uri(uri)
    if exists(join(where, "run.json")):
        return where
    pointer = read_pointer(where)
    if pointer is not None:
        return join(where, "runs", pointer.run)
    runs = list_names(join(where, "runs"))
    if len(runs) == 1:
        return join(where, "runs", runs[0])
    if not runs:
        raise DataError(
            f"{where} holds no run; expected <volume>/runs/<key>/run.json, or <run>/run.json. "
            "Start one with `petalign align SOURCE VOLUME`."
        )
    raise DataError(
        f"{where} holds {len(runs)} runs and none is published; name one of them: "
        + ", ".join(join(where, "runs", run) for run in runs)
    )


@dataclass(frozen=True)
class Answer:
    """One point in both frames, px at mip 0."""

    z: int
    aligned: tuple[float, float]
    source: tuple[float, float]
    """Each (y, x)."""
    given: Literal["aligned", "source"]
    section: str
    """Name of the section."""
    remarks: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return it for a JSON document."""
        places = {
            name: dict(zip("yx", (round(v, 3) for v in getattr(self, name)), strict=True))
            for name in ("aligned", "source")
        }
        return {
            "z": self.z, "section": self.section, "given": self.given, **places,
            "remarks": list(self.remarks),
        }  # fmt: skip

    @property
    def line(self) -> str:
        """Return it for a person: the given point, an arrow, the other one."""
        found = "source" if self.given == "aligned" else "aligned"
        ends = (
            "{} (z {}, y {:.3f}, x {:.3f})".format(name, self.z, *getattr(self, name))
            for name in (self.given, found)
        )
        return " -> ".join(ends) + " px" + "".join(f"; {remark}" for remark in self.remarks)


def parse_point(text: str) -> tuple[int, float, float]:
    """Return (z, y, x) of ``Z,Y,X``.

    >>> parse_point("12,2048.5,-3")
    (12, 2048.5, -3.0)

    Raises
    ------
    ConfigError
        If `text` is anything else.
    """
    parts = text.split(",")
    try:
        z, y, x = int(parts[0]), *(float(part) for part in parts[1:])
    except ValueError:
        raise ConfigError(
            f"point {text!r}: expected Z,Y,X, for example 12,2048.5,977: a section and a place in "
            "it, px at mip 0"
        ) from None
    return z, y, x


def ask(
    uri: str, points: Sequence[tuple[int, float, float]], *, inverse: bool = False
) -> list[Answer]:
    """Map points of a run or volume.

    Parameters
    ----------
    uri : str
        What `find_run` takes.
    points : sequence of (z, y, x)
        Section and px at mip 0: in the aligned volume, or with `inverse` in the source.

    Returns
    -------
    list of Answer
        In the order of `points`.

    Raises
    ------
    DataError
        If there is no such run or section, a coordinate is not finite, or the run is not relaxed.
    """
    run = load(find_run(uri))
    for point in points:
        if not np.isfinite(point).all():
            raise DataError(f"y and x must be finite, px at mip 0; got {point[1]}, {point[2]}")
    mapped: dict[int, list[float]] = {}
    for z in sorted({z for z, _, _ in points}):
        mine = [k for k, point in enumerate(points) if point[0] == z]
        there = (to_aligned if inverse else to_source)(
            run.uri, z, np.array([points[k][1:] for k in mine])
        )
        mapped |= dict(zip(mine, there.tolist(), strict=True))
    return [_answer(run, point, mapped[k], inverse) for k, point in enumerate(points)]


def _answer(run: Run, point: tuple[int, float, float], found: list[float], inverse: bool) -> Answer:
    z, y, x = point
    places = {"aligned": (y, x), "source": (found[0], found[1])}
    if inverse:
        places = {"aligned": places["source"], "source": places["aligned"]}
    frames = {"aligned": inputs.coarse(run.uri).canvas, "source": run.shape[1:]}
    remarks = [
        f"outside the {what}"
        for name, what in (("aligned", "aligned volume"), ("source", "source section"))
        if not all(-0.5 <= at < n - 0.5 for at, n in zip(places[name], frames[name], strict=True))
    ]
    if z in inputs.missing(run.uri):
        remarks.append(f"section {z} is bridged, its place is interpolated")
    return Answer(
        z=z,
        aligned=places["aligned"],
        source=places["source"],
        given="source" if inverse else "aligned",
        section=run.section_names[z],
        remarks=tuple(remarks),
    )


def to_source(run_uri: str, z: int, points: Points) -> Points:
    """Map points (n, 2), (y, x) px at mip 0, of section z of the aligned volume to the source."""
    return map_to_source(*_transform(run_uri, z), points)


def to_aligned(run_uri: str, z: int, points: Points) -> Points:
    """Map points (n, 2), (y, x) px at mip 0, of source section z to the aligned volume."""
    return map_to_aligned(*_transform(run_uri, z), points)


def _transform(run_uri: str, z: int) -> tuple[Affine, Field, float]:
    """Return coarse affine, field and node spacing of a section."""
    run = load(run_uri)
    if not 0 <= z < run.shape[0]:
        raise DataError(f"section {z} does not exist; the run has 0 ... {run.shape[0] - 1}")
    if read_state(run.uri, "relax").status != "done":
        raise DataError(
            f"{run.uri} has no displacement field yet, its stage relax is not done; go on with "
            f"`petalign resume {run.uri}`"
        )
    field = inputs.read_row(open_array(run.uri, "fields"), z)
    return inputs.coarse(run.uri).matrices[z], field, run.config.relax.node_spacing_px
