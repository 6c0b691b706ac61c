"""The form of a run, made from the configuration model, so that the two cannot drift apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from airflow.sdk import Param
from pydantic import BaseModel

from alignment.config import PipelineConfig
from alignment.errors import ConfigError

URI_PATTERN = r"^(s3://[a-z0-9][a-z0-9.-]+|file:///)[^?#%*\\{}]*$"
"""A first look, for the form; the allow-list of the connection decides."""

_EXAMPLES = ("match.neighbours", "patches.batch", "training.steps", "training.epochs")

GENERAL = "general"
"""Section of the form for what belongs to no other."""

URIS = {
    "source": "The unaligned sections: a zarr or precomputed volume, a TIFF stack, or images.",
    "volume": "Where the aligned volume shall be; each run has its own folder below it.",
}


def run_params() -> dict[str, Param]:
    """Return the parameters of a run: its two URIs, then every setting as ``stage.setting``.

    Types, ranges, choices and help come from the JSON schema of ``PipelineConfig``.
    """
    return uri_params(URIS) | setting_params(PipelineConfig)


def uri_params(described: Mapping[str, str]) -> dict[str, Param]:
    """Return a parameter that must be given for each place."""
    return {
        name: Param(
            type="string", pattern=URI_PATTERN, title=name.capitalize(), description=description
        )
        for name, description in described.items()
    }


def setting_params(model: type[BaseModel]) -> dict[str, Param]:
    """Return a parameter for each setting of a configuration model, by its dotted name."""
    schema = model.model_json_schema()
    whole = _inlined({k: v for k, v in schema.items() if k != "$defs"}, schema.get("$defs", {}))
    return dict(_leaves(whole, model().model_dump(mode="json"), ()))


def _leaves(
    schema: Mapping[str, Any], defaults: Mapping[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[str, Param]]:
    about = schema["description"].partition(".")[0].partition("\n")[0]
    section = f"{'.'.join(path) or GENERAL}: {about[0].lower()}{about[1:]}"
    for name, default in defaults.items():
        rules = _form_rules(schema["properties"][name])
        if "properties" in rules:
            yield from _leaves(rules, default, (*path, name))
        elif "const" not in rules:  # what has one value only is nothing to ask for
            description = rules.pop("description", None)
            key = ".".join((*path, name))
            yield key, Param(default, description, section=section, **rules)


def nested(
    values: Mapping[str, Any],
    *,
    besides: Iterable[str] = URIS,
    model: type[BaseModel] = PipelineConfig,
) -> dict[str, Any]:
    """Return the configuration that flat ``stage.setting`` values mean, of any depth.

    :param besides: parameters of the DAG that are no settings, such as the two URIs of a run
    :param model: of the configuration
    :raises ConfigError: if a key is no parameter of the DAG; Airflow itself lets it pass
    """
    settings = setting_params(model)
    others = tuple(besides)
    if unknown := [key for key in values if key not in settings and key not in others]:
        raise ConfigError("\n".join(_hint(key, [*others, *settings]) for key in unknown))
    config: dict[str, Any] = {}
    for key, value in values.items():
        if key not in others:
            *parts, setting = key.split(".")
            place = config
            for part in parts:
                place = place.setdefault(part, {})
            place[setting] = value
    return config


def _hint(key: str, known: list[str]) -> str:
    inside = [name for name in known if name.startswith(f"{key}.")]
    near = get_close_matches(key, known, n=1)
    if inside:
        hint = f"its settings are parameters of their own: {', '.join(inside)}"
    elif near:
        hint = f"did you mean {near[0]!r}?"
    else:
        examples = [name for name in _EXAMPLES if name in known]
        hint = f"settings are written like {examples[0]!r}"
    return f"{key}: no such parameter; {hint}"


def _inlined(schema: Any, definitions: Mapping[str, Any]) -> Any:
    """Return the schema with every ``$ref`` replaced by what it names."""
    if isinstance(schema, list):
        return [_inlined(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    rest = {key: _inlined(value, definitions) for key, value in schema.items() if key != "$ref"}
    if reference := schema.get("$ref"):
        return _inlined(definitions[reference.rpartition("/")[2]], definitions) | rest
    return rest


def _form_rules(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema in the words that Airflow's form knows: one level, ``type`` and ``items``.

    The form draws "or null" only as a list of types, and the elements of a fixed-length array only
    from ``items``; as JSON schema both mean the same as what pydantic writes. It knows no choice of
    models: that is one JSON object, which the configuration itself checks, in better words.
    """
    if alternatives := schema.get("oneOf"):
        return {"type": "object", "description": _about_choice(schema, alternatives)}
    rules = {key: value for key, value in schema.items() if key not in ("default", "anyOf")}
    choices = [choice for choice in schema.get("anyOf", []) if choice != {"type": "null"}]
    if choices:
        (choice,) = choices
        rules |= choice | {"type": [choice["type"], "null"]}
    elements = rules.get("prefixItems", [])
    if elements and all(element == elements[0] for element in elements):
        rules["items"] = rules.pop("prefixItems")[0]
    return rules


def _about_choice(schema: Mapping[str, Any], alternatives: Sequence[Mapping[str, Any]]) -> str:
    """Return the help of a choice of models: what each is called, and what it may hold."""
    tag = schema["discriminator"]["propertyName"]
    told = []
    for model in alternatives:
        names = [name for name in model["properties"] if name != tag]
        told.append(f"{model['properties'][tag]['const']} ({', '.join(names)})")
    return f"{schema.get('description', '')} A JSON object; `{tag}` is {' or '.join(told)}.".strip()
