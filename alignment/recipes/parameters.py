"""Values of parameters: what they may be, and the ways to write them.

A value becomes part of a command's argument, so what it may contain is a short list of characters
and not a list of bad ones: no character that any shell, template or terminal treats specially.
"""

from __future__ import annotations

import math
import re
import unicodedata
from typing import Any, Literal, NamedTuple
from urllib.parse import unquote

from storage.errors import UriError
from storage.uri import normalise_uri

Value = str | int | float | bool

MAX_CHARACTERS = 1024
MAX_VALUES = 100_000
"""Values of one parameter."""

_ALLOWED = re.compile(r"[\w .,:=+@%/()\[\]-]*")
_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
_RANGE = re.compile(rf"\s*({_NUMBER})\s*-\s*({_NUMBER})\s*")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


class Parameter(NamedTuple):
    """A parameter's values: one of a list, or any number between two."""

    kind: Literal["discrete", "uniform"]
    values: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0


def parse_parameter(raw: Any) -> Parameter:
    """Return what a parameter's YAML means.

    A number, a word or a boolean is a constant; a list is a discrete set; ``"0.1-0.3"`` and
    ``{range: 0.1-0.3, sampling: uniform}`` are any number of [0.1, 0.3); and
    ``{range: 0-4, sampling: discrete}`` are the integers 0, 1, 2, 3, 4.

    >>> parse_parameter("0.01-0.09")
    Parameter(kind='uniform', values=(), low=0.01, high=0.09)
    >>> parse_parameter({"range": "0-2", "sampling": "discrete"}).values
    (0, 1, 2)

    Raises
    ------
    ValueError
        If it is none of these, or a value is refused by `text_of`.
    """
    if isinstance(raw, dict):
        return _parse_mapping(raw)
    if isinstance(raw, list | tuple):
        if not 1 <= len(raw) <= MAX_VALUES:
            raise ValueError(f"a list needs 1 to {MAX_VALUES} values, this one has {len(raw)}")
        for value in raw:
            text_of(value)
        return Parameter("discrete", tuple(raw))
    if isinstance(raw, str) and (match := _RANGE.fullmatch(raw)):
        return _uniform(match)
    text_of(raw)
    return Parameter("discrete", (raw,))


def _parse_mapping(raw: dict[Any, Any]) -> Parameter:
    if set(raw) != {"range", "sampling"} or raw["sampling"] not in ("discrete", "uniform"):
        raise ValueError("expected {range: LOW-HIGH, sampling: discrete} or sampling: uniform")
    match = _RANGE.fullmatch(str(raw["range"]))
    if match is None:
        raise ValueError(f"range {raw['range']!r} is not LOW-HIGH, such as 0-4 or 0.1-0.3")
    if raw["sampling"] == "uniform":
        return _uniform(match)
    try:
        low, high = int(match[1]), int(match[2])
    except ValueError:
        raise ValueError(
            f"a discrete range has whole ends, got {raw['range']!r}; write a list instead"
        ) from None
    if not 0 <= high - low < MAX_VALUES:
        raise ValueError(
            f"range {low}-{high} holds {high - low + 1} values; it may hold 1 to {MAX_VALUES}"
        )
    return Parameter("discrete", tuple(range(low, high + 1)))


def _uniform(match: re.Match[str]) -> Parameter:
    low, high = float(match[1]), float(match[2])
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ValueError(f"range {match[0].strip()!r} is empty: its first number must be below")
    return Parameter("uniform", low=low, high=high)


def text_of(value: Any) -> str:
    """Return the text that stands for a value in a command.

    >>> text_of(True), text_of(0.5), text_of("s3://lab/raw.zarr")
    ('true', '0.5', 's3://lab/raw.zarr')

    Raises
    ------
    ValueError
        With the reason, if the value may not become part of a command.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        if not math.isfinite(value) or abs(value) >= 2**63:
            raise ValueError(f"{value!r} is not a finite number below 2**63")
        return repr(value)
    if not isinstance(value, str):
        raise ValueError(f"expected text, a number or a boolean, got {type(value).__name__}")
    _check_characters(value)
    _check_place(value)
    return value


def _check_characters(text: str) -> None:
    if not text:
        raise ValueError("an empty value would move the arguments after it")
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"a value has at most {MAX_CHARACTERS} characters, got {len(text)}")
    for character in text:
        category = unicodedata.category(character)
        if category in ("Cc", "Zl", "Zp"):
            raise ValueError(f"{text!r} holds a control character or a line break")
        if category in ("Cf", "Cs", "Co", "Cn"):
            raise ValueError(f"{text!r} holds an invisible character ({character!r})")
    if any(mark in text for mark in ("{{", "}}", "{%", "{#")):
        raise ValueError(f"{text!r} holds template marks; values are never templates")
    if not _ALLOWED.fullmatch(text):
        bad = next(character for character in text if not _ALLOWED.fullmatch(character))
        raise ValueError(
            f"{text!r} holds {bad!r}; allowed are letters, digits, space and . , : = + @ % / ( ) "
            "[ ] - _. Put anything else into a file of the recipe"
        )


def _check_place(text: str) -> None:
    """Refuse a value that leads elsewhere: upwards, to the root, to a home, to another protocol."""
    plain = unquote(unquote(text))
    if ".." in re.split(r"[/\\=:, ]", plain):
        raise ValueError(f"{text!r} leads out of its folder ('..')")
    if plain[:1] in "/\\~":
        raise ValueError(
            f"{text!r} is an absolute path; write file:///..., which is checked against the places "
            "that are allowed"
        )
    if "://" in plain:
        if "://" not in text or not _SCHEME.match(text):
            raise ValueError(f"{text!r} hides a URI; write s3://bucket/key or file:///path")
        try:
            normalise_uri(text)
        except UriError as error:
            raise ValueError(f"{text!r} is not a place of data: {error}") from None
