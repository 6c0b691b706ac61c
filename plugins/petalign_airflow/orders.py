"""What a scheduled DAG shall do: its parameters, and an Airflow Variable for those left empty.

The Variable is read when a task runs, never when a DAG file is parsed. It holds a JSON object with
some of the keys of `DESCRIBED`, for example::

    {"source": "s3://em/raw.zarr", "volume": "s3://em/aligned", "settings": {"match.neighbours": 3}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from airflow.sdk import Param, Variable
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from petalign_airflow.hooks import DaskHook
from petalign_airflow.params import URI_PATTERN

if TYPE_CHECKING:
    from airflow.sdk import Context

VARIABLE = "petalign_nightly"
"""Of the DAGs that are shipped; others name their own."""

PLACES = {
    "incoming": "A folder of section images, one TIFF or PNG file each, named as their sections.",
    "source": "The unaligned sections.",
    "volume": "The aligned volume.",
}
DESCRIBED = (*PLACES, "settings")
BY_HAND = ("manual", "operator_triggered")


def place_params(**defaults: str | None) -> dict[str, Param]:
    """Return parameters for places; those without a default are left to the Variable."""
    return {
        name: Param(
            default,
            f"{PLACES[name]} Empty: as the Variable says.",
            type=["null", "string"],
            pattern=URI_PATTERN,
            title=name.capitalize(),
        )
        for name, default in defaults.items()
    }


def read_order(
    context: Context, hook: DaskHook, *, places: Sequence[str], known: Sequence[str], variable: str
) -> dict[str, Any]:
    """Return the parameters of a DAG run, places from the Variable where they are empty.

    :param places: what must be known in the end; each is held against the connection's allow-list
    :param known: further parameters of the DAG; every other key is refused
    :param variable: name of the Airflow Variable
    :raises AirflowSkipException: if nothing is set and nobody asked: the schedule came by
    :raises AirflowFailException: if a key is unknown, a place is not set, or not allowed
    """
    params = dict(context["params"])
    _refuse_unknown(params, (*places, *known), "parameter")
    described = _described(variable)
    order = {**params, "settings": _settings(described, variable) | _settings(params, "conf")}
    for place in places:
        order[place] = params.get(place) or described.get(place)
    missing = [place for place in places if not order[place]]
    if missing:
        message = (
            f"{' and '.join(missing)} not set: give the parameter, or put it into the Airflow "
            f"Variable {variable!r}, a JSON object with {', '.join(places)}"
        )
        run = context.get("dag_run")
        is_idle = not described and not any(params.get(place) for place in places)
        if is_idle and run is not None and run.run_type not in BY_HAND:
            raise AirflowSkipException(f"nothing to do: {message}")
        raise AirflowFailException(message)
    for place in places:
        hook.check_uri(str(order[place]))
    return order


def _settings(given: Mapping[str, Any], whose: str) -> dict[str, Any]:
    """Return settings by flat names; that these are settings is for the configuration to say."""
    settings = given.get("settings") or {}
    if not isinstance(settings, dict):
        raise AirflowFailException(
            f"settings must be an object such as {{'match.neighbours': 3}}; {whose} has "
            f"{settings!r:.80}"
        )
    if places := [name for name in settings if name in PLACES]:
        raise AirflowFailException(
            f"{', '.join(places)}: a place, not a setting; give it beside them"
        )
    return settings


def _described(variable: str) -> dict[str, Any]:
    """Return what the Variable says; nothing if there is none."""
    text = Variable.get(variable, default=None)
    if text is None:
        return {}
    try:
        value = json.loads(text) if isinstance(text, str) else text
    except ValueError as error:
        raise AirflowFailException(f"Airflow Variable {variable!r} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise AirflowFailException(
            f"Airflow Variable {variable!r} must be a JSON object with some of "
            f"{', '.join(DESCRIBED)}; got {text!r:.200}"
        )
    _refuse_unknown(value, DESCRIBED, f"key of Airflow Variable {variable!r}")
    return value


def _refuse_unknown(given: Mapping[str, Any], known: Sequence[str], what: str) -> None:
    """Refuse what was misspelt; Airflow itself lets any key pass."""
    unknown = [key for key in given if key not in known]
    if unknown:
        hints = [get_close_matches(key, known, n=1) for key in unknown]
        told = [
            f"{key!r:.80}" + (f" (did you mean {hint[0]!r}?)" if hint else "")
            for key, hint in zip(unknown, hints, strict=True)
        ]
        raise AirflowFailException(
            f"no such {what}: {', '.join(told)}; there are {', '.join(known)}"
        )
