"""The model of confidence: the numbers that `alignment.confidence` makes a probability with.

Apart from it, because a run freezes its model before any match is made: what only keeps the model
must not hang on the code of matching.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files

from alignment.errors import DataError


@dataclass(frozen=True)
class Model:
    """The fitted numbers."""

    bias: float
    weights: dict[str, float]
    """Of each of `alignment.confidence.STATISTICS`, in units of the logit."""
    logits: tuple[float, ...]
    """Ascending; knots of the monotone curve, linear between them and constant beyond."""
    probabilities: tuple[float, ...]
    """At the knots, ascending, 0..1."""
    made_by: str = ""
    """The command."""

    def text(self) -> str:
        """Return the file's text."""
        return json.dumps(asdict(self), indent=2) + "\n"


@cache
def shipped_model() -> Model:
    """Return the model that comes with the package."""
    return parse_model(files("alignment").joinpath("confidence.json").read_text("utf-8"))


def parse_model(text: str) -> Model:
    """Return the model that `Model.text` gave.

    Raises
    ------
    DataError
        If it is none.
    """
    try:
        values = json.loads(text)
        values |= {name: tuple(values[name]) for name in ("logits", "probabilities")}
        return Model(**values)
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"expected a model of confidence, JSON as in alignment/confidence.json; got {error!r}"
        ) from None
