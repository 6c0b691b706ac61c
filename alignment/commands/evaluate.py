"""`petalign evaluate matcher`: how often each way of making features is wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from alignment.commands.console import counter, out, print_json
from alignment.errors import ConfigError, DataError
from alignment.learning.evaluation import (
    EvaluationConfig,
    Rate,
    evaluate,
    false_rate,
    rate_difference,
    rejected_at_zero_false,
)
from alignment.learning.stacks import open_stack
from alignment.learning.ways import band_pass, raw, tuned_band
from inference.errors import BackendError, ModelError
from inference.model import FeatureTransform
from inference.transform import load_transform

TUNING_MATCHES = 2000
"""A point of the band's grid; 42 points."""


@dataclass(frozen=True)
class Row:
    """One way on one stack."""

    way: str
    distance: int
    template_px: int
    rate: Rate
    rejected_at_zero_false: float
    """Share of true matches that must go until no false one is left, by r_delta."""
    below_raw: tuple[float, float, float] | None
    """By how much its share of false matches lies below that of raw, and the 95 % interval."""


def compare_ways(
    uri: str,
    models: Sequence[Path],
    config: EvaluationConfig,
    *,
    mip: int,
    templates_px: Sequence[int],
    distances: Sequence[int],
    tune_on: str | None,
) -> tuple[tuple[Row, ...], dict[str, Any]]:
    """Compare raw, a band-pass and networks; return the rows, and what was compared.

    Raises
    ------
    DataError, ConfigError
        If the stack is too small, a model is none, or TensorFlow is not installed.
    """
    stack = open_stack(uri, mip)
    band, tuned = (1.0, 12.0), "the default of features"
    if tune_on is not None:
        matches = min(TUNING_MATCHES, config.matches)
        with counter("tuning", of="bands") as count:
            other = open_stack(tune_on, mip)
            first = {"template_px": templates_px[0], "distance": distances[0]}
            settings = config.model_copy(update={"matches": matches, **first})
            band, _ = tuned_band(other, settings, tell=count)
        tuned = f"tuned on {tune_on}"
    ways: dict[str, FeatureTransform] = {"raw": raw, "band-pass": band_pass(*band)}
    ways |= {path.stem: _network(path) for path in models}
    rows = []
    with counter("matching", of="pairs") as count:
        for distance in distances:
            for template in templates_px:
                update = {"template_px": template, "distance": distance}
                cell = config.model_copy(update=update)
                found = evaluate(stack, ways, cell, tell=count)
                for way, matches_of in found.items():
                    is_raw = way == "raw"
                    rows.append(
                        Row(
                            way,
                            distance,
                            template,
                            false_rate(matches_of, cell.tolerance_px),
                            rejected_at_zero_false(matches_of, cell.tolerance_px),
                            None
                            if is_raw
                            else rate_difference(found["raw"], matches_of, cell.tolerance_px),
                        )
                    )
    about = {
        "stack": stack.uri, "mip": mip, "band_px": list(band), "band_is": tuned,
        **config.model_dump(exclude={"template_px", "distance"}),
    }  # fmt: skip
    return tuple(rows), about


def _network(path: Path) -> FeatureTransform:
    try:
        return load_transform(path)
    except ModelError as error:
        raise DataError(str(error)) from None
    except FileNotFoundError:
        raise DataError(f"{path} does not exist; make one: petalign train nccnet") from None
    except BackendError as error:
        raise ConfigError(str(error)) from None


def print_rows(rows: Sequence[Row], about: dict[str, Any], *, as_json: bool) -> None:
    """Print the table of false matches."""
    if as_json:
        print_json({**about, "rows": [asdict(row) | {"share": row.rate.share} for row in rows]})
        return
    table = Table(box=None, padding=(0, 2, 0, 0))
    table.add_column("way")
    for heading in ("apart", "template", "false", "of", "share", "95 %", "rejected"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        rate = row.rate
        table.add_row(
            row.way, str(row.distance), f"{row.template_px} px", f"{rate.false:,}",
            f"{rate.matches:,}", f"{rate.share:.2%}", f"{rate.low:.2%} - {rate.high:.2%}",
            f"{row.rejected_at_zero_false:.1%}",
        )  # fmt: skip
    out.print(table)
    low, high = about["band_px"]
    out.print(
        f"false: farther than {about['tolerance_px']:g} px from where it belongs, at mip "
        f"{about['mip']}; band-pass {low:g} to {high:g} px, {about['band_is']}",
        highlight=False,
    )
    out.print("rejected: share of right matches with an r_delta as low as a false one's")
