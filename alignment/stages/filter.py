"""Stage "filter": what of the matches is believed; the rest becomes NaN, with its reason."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignment.attachments import confidence_model
from alignment.confidence import RIGHT_PX, reject_unsure
from alignment.confidence_model import Model
from alignment.damage import Damage, damage_distance
from alignment.filter import count_reasons, judge_section, leave_out
from alignment.match import CHANNELS, grid_spacing_px
from alignment.runs import Run, load
from alignment.stages import inputs
from alignment.stages.matched import holes_refs, pair_refs, read_pair, retried_pairs
from alignment.stages.units import Phase, Record, Ref, Section
from storage.volume import create_array, open_array


def phases(run: Run) -> Iterator[Phase]:
    """Yield one phase over the sections; each judges all matches of its own."""
    sections = sorted({z for z, _ in inputs.match_pairs(run) if run.owns(z)})
    for d in sorted({d for z in sections for d in _own(run, z)}):
        nz, channels, ny, nx = open_array(run.uri, f"matches/{d}").shape
        create_array(
            run.uri,
            f"trusted/{d}",
            shape=(nz, channels, ny, nx),
            chunk=(1, channels, ny, nx),
            dtype="float32",
            fill_value=np.nan,
            dimension_names=("z", "channel", "y", "x"),
            attributes={"channels": list(CHANNELS), "unit": "px at mip 0"},
        )
        create_array(
            run.uri,
            f"confidence/{d}",
            shape=(nz, ny, nx),
            chunk=(1, ny, nx),
            dtype="float32",
            fill_value=np.nan,
            dimension_names=("z", "y", "x"),
            attributes={"about": f"probability that a trusted match is right to {RIGHT_PX:g} px"},
        )
        create_array(
            run.uri,
            f"rejected/{d}",
            shape=(nz, ny, nx),
            chunk=(1, ny, nx),
            dtype="uint16",
            fill_value=0,
            dimension_names=("z", "y", "x"),
        )
    units = [Section(z) for z in sections]
    yield Phase("sections", units, judge, reads_matches, ("filter", "match"), local=True)


def _own(run: Run, z: int) -> dict[int, int]:
    """Return, by distance d, which retry section z was matched in; 0 for those matched anyway."""
    anyway = {d: 0 for at, d in inputs.match_pairs(run) if at == z}
    return dict(sorted({**anyway, **retried_pairs(run, z)}.items()))


def _cycles(run: Run, z: int) -> list[tuple[int, int]]:
    """Return (near, far) where z -> z - near -> z - far can be compared with z -> z - far."""
    own, pairs = _own(run, z), set(inputs.match_pairs(run))
    return [
        (near, far) for near in own for far in own if far > near and (z - near, far - near) in pairs
    ]


def reads_matches(unit: Section, *, run_uri: str) -> list[Ref | str]:
    """Return matches of the section and those that close a cycle, damage, places, the model."""
    run, z = load(run_uri), unit.z
    own = [ref for d, k in _own(run, z).items() for ref in pair_refs(run, z, d, retry=k)]
    links = [ref for a, b in _cycles(run, z) for ref in pair_refs(run, z - a, b - a)]
    ends = [z, *(z - d for d in _own(run, z))]
    seen = [*own, *links, *holes_refs(run, z), *map(inputs.masked, ends)]
    return [*seen, *inputs.place_facts(run_uri, *ends), f"model {_model(run).text()}"]


def judge(unit: Section, *, run_uri: str) -> Record:
    """Write the trusted matches of section z with its earlier neighbours."""
    run, z = load(run_uri), unit.z
    spacing, config = grid_spacing_px(run.config.match), run.config.filter
    own = {d: read_pair(run, z, d, retry=k) for d, k in _own(run, z).items()}
    links = {(near, far): read_pair(run, z - near, far - near) for near, far in _cycles(run, z)}
    damage = {k: _damage(run, k) for k in (z, *(z - d for d in own))}
    at_damage = {d: _is_at(damage, m, z, z - d, run) for d, m in own.items()}
    own = {d: _without(m, at_damage[d]) for d, m in own.items()}
    links = {
        (a, b): _without(m, _is_at(damage, m, z - a, z - b, run)) for (a, b), m in links.items()
    }
    record: Record = {"z": z, "pairs": {}, "bytes_read": 0, "bytes_written": 0}
    for d, judged in judge_section(own, links, spacing_px=spacing, config=config).items():
        named = leave_out(judged, at_damage[d])
        trusted, sure = reject_unsure(named, spacing_px=spacing, config=config, model=_model(run))
        rows: dict[str, NDArray[Any]] = {
            "trusted": trusted.matches,
            "rejected": trusted.reasons,
            "confidence": sure,
        }
        digests = {
            name: inputs.write_row(open_array(run_uri, f"{name}/{d}"), z, row)
            for name, row in rows.items()
        }
        record["pairs"][str(d)] = {
            "trusted": int(np.isfinite(sure).sum()),
            "reasons": count_reasons(trusted.reasons),
            "right": round(float(np.nansum(sure)), 3),
            "sha256": digests["trusted"],
        }
        record["bytes_read"] += int(own[d].nbytes)
        record["bytes_written"] += sum(int(row.nbytes) for row in rows.values())
    return record


def _model(run: Run) -> Model:
    return confidence_model(run.uri, run.config.filter.model, run.attachments.get("model", ""))


def _damage(run: Run, z: int) -> Damage:
    defects = inputs.read_row(open_array(run.uri, "defects"), z)
    return Damage.of(defects, mip=run.config.masks.mip, matrix=inputs.coarse(run.uri).matrices[z])


def _is_at(
    damage: dict[int, Damage], matches: NDArray[np.float32], moving: int, fixed: int, run: Run
) -> NDArray[np.bool_]:
    spacing = grid_spacing_px(run.config.match)
    distance = damage_distance(
        matches, spacing_px=spacing, moving=damage[moving], fixed=damage[fixed]
    )
    return distance < run.config.filter.damage_margin_px


def _without(matches: NDArray[np.float32], nodes: NDArray[np.bool_]) -> NDArray[np.float32]:
    return np.where(nodes, np.float32(np.nan), matches)
