"""The form of a recipe: what people write in YAML, checked before anything runs.

The docstring under a field is its help in the JSON schema (`petalign recipe schema`) too.
"""

from __future__ import annotations

import re
from difflib import get_close_matches
from graphlib import CycleError, TopologicalSorter
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    ValidationError,
    WithJsonSchema,
    model_validator,
)

from alignment.config import Config
from alignment.errors import ConfigError
from alignment.recipes.parameters import Parameter, parse_parameter, text_of
from alignment.recipes.template import check_command, check_file_name, check_word, split_command

MAX_TEXT_BYTES = 256 * 1024
MAX_EXPERIMENTS = 64
MAX_TASKS = 100_000
"""Of one experiment."""

_SCALAR = {"type": ["string", "number", "boolean"]}
_PARAMETER_SCHEMA = {
    "anyOf": [
        _SCALAR,
        {"type": "array", "items": _SCALAR, "minItems": 1},
        {
            "type": "object",
            "properties": {
                "range": {"type": "string", "examples": ["0-4", "0.1-0.3"]},
                "sampling": {"enum": ["discrete", "uniform"]},
            },
            "required": ["range", "sampling"],
            "additionalProperties": False,
        },
    ]
}
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_RESERVED = re.compile(
    r"PATH|HOME|SHELL|IFS|ENV|BASH_.*|TMPDIR|PYTHON.*|LD_.*|DYLD_.*|GCONV_PATH|MALLOC_.*|PETALIGN_.*"
    r"|AWS_.*|AIRFLOW.*|DASK_.*|TF_CONFIG|.*_PROXY|PERL.*|RUBY.*|NODE_.*|GIT_.*|SSL_.*"
)
_SECRET = re.compile(r".*(SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|PRIVATE|API_?KEY).*")
_FETCH = re.compile(r"([a-z][a-z0-9_-]{0,39})(?:/(\d{1,6}|\{\{[a-z][a-z0-9_]*\}\}))?")


def _variable(name: str) -> str:
    if not _VARIABLE.fullmatch(name):
        raise ValueError("a variable has capital letters, digits and _ in its name")
    if _RESERVED.fullmatch(name):
        raise ValueError("this variable is not for recipes to set: it steers programs or petalign")
    if _SECRET.fullmatch(name):
        raise ValueError(
            "it looks like a secret, and a recipe is stored as it is; use `credentials: true`"
        )
    return name


def _text(value: Any) -> str:
    return text_of(value)


Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
ParameterName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Tag = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,39}$")]
Values = Annotated[Parameter, BeforeValidator(parse_parameter), WithJsonSchema(_PARAMETER_SCHEMA)]
Words = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda raw: split_command(raw) if isinstance(raw, str | list) else raw),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
]


class Experiment(Config):
    """Many tasks: one command, run once for every point of its parameters."""

    command: Words
    """What to run: a list of words, or a text that is split into words before `{{name}}` is filled
    in. Programs are `python` (with one of `files`), `petalign`, and those the platform allows."""
    parameters: dict[ParameterName, Values] = Field(default={}, max_length=32)
    """Values by name: a constant, a list, "0.01-0.09", or {range: 0-4, sampling: discrete}."""
    sampling: Literal["grid", "random"] = "grid"
    """"grid" runs every combination of the lists once; "random" draws `samples` points."""
    samples: Annotated[int, Field(ge=1, le=MAX_TASKS)] | None = None
    """How many points "random" draws: each combination equally often, give or take one."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Points are drawn anew with another seed, and only then."""
    workers: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Processes at a time; with `gang`, the processes that work on one point together."""
    gang: bool = False
    """Whether `workers` processes start together for each point, and know one another."""
    hardware: dict[Tag, Annotated[float, Field(gt=0, le=1e6)]] = Field(default={}, max_length=8)
    """What a process takes of its worker's Dask resources, such as {gpu: 1}."""
    depends_on: tuple[Name, ...] = ()
    """Experiments that must have finished without a failure before this one begins."""
    fetch: tuple[Annotated[str, Field(pattern=f"^{_FETCH.pattern}$")], ...] = ()
    """Outputs of such experiments to lay into ./in: all of "name", or those of one task, as in
    "name/{{shard}}"."""
    retries: Annotated[int, Field(ge=0, le=20)] = 2
    """How often a task whose program failed is tried again."""
    recovery: bool = True
    """Whether a task is started again if its worker was lost. False for what must not run twice."""
    timeout_s: Annotated[float, Field(gt=0, le=30 * 86_400)] = 86_400.0
    """A process that runs longer is ended and has failed."""
    environment: dict[
        Annotated[str, AfterValidator(_variable)], Annotated[str, BeforeValidator(_text)]
    ] = Field(default={}, max_length=64)
    """Further variables of the process. They are stored as they are: never secrets."""
    credentials: bool = False
    """Whether the process gets its worker's S3 credentials; else only the worker reads and
    writes the store."""

    @model_validator(mode="after")
    def _samples_fit_sampling(self) -> Self:
        ranges = [name for name, p in self.parameters.items() if p.kind == "uniform"]
        if self.sampling == "random" and self.samples is None:
            raise ValueError("sampling: random needs `samples`, how many points to draw")
        if self.sampling == "grid" and self.samples is not None:
            raise ValueError("`samples` needs sampling: random; a grid has all combinations")
        if self.sampling == "grid" and ranges:
            raise ValueError(
                f"{', '.join(ranges)}: a range has no end of values; set sampling: random and "
                "`samples`, or give a list"
            )
        return self

    @model_validator(mode="after")
    def _fetches_what_it_waits_for(self) -> Self:
        for item in self.fetch:
            if item.partition("/")[0] not in self.depends_on:
                raise ValueError(f"fetch {item!r}: name the experiment in depends_on as well")
            try:
                check_word(item, self.parameters)
            except ValueError as error:
                raise ValueError(f"fetch: {error}") from None
        return self


class Recipe(Config):
    """Experiments and the files that they run."""

    version: Literal[1] = 1
    """Of this form."""
    name: Annotated[str, Field(pattern=r"^[\w .-]{1,80}$")] = "recipe"
    """For people."""
    files: tuple[Annotated[str, AfterValidator(check_file_name)], ...] = Field(
        default=(), max_length=64
    )
    """Files beside the recipe that every task finds in its folder: its scripts."""
    experiments: dict[Name, Experiment] = Field(min_length=1, max_length=MAX_EXPERIMENTS)
    """Experiments by name."""

    @model_validator(mode="after")
    def _commands_are_safe(self) -> Self:
        for name, experiment in self.experiments.items():
            try:
                check_command(experiment.command, experiment.parameters, self.files)
            except ValueError as error:
                raise ValueError(f"experiments.{name}.command: {error}") from None
        return self

    @model_validator(mode="after")
    def _dependencies_end(self) -> Self:
        for name, experiment in self.experiments.items():
            for other in experiment.depends_on:
                if other not in self.experiments:
                    raise ValueError(
                        f"experiments.{name}.depends_on: no experiment {other!r}; there are "
                        f"{', '.join(self.experiments)}"
                    )
        self.order()
        return self

    def order(self) -> list[str]:
        """Return the experiments, each behind those that it depends on."""
        edges = {name: set(one.depends_on) for name, one in self.experiments.items()}
        try:
            return list(TopologicalSorter(edges).static_order())
        except CycleError as error:
            raise ValueError(f"depends_on goes round: {' <- '.join(error.args[1])}") from None


class _Loader(yaml.SafeLoader):
    """YAML without references, which could make a short text long, and without double keys."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.YAMLError("a recipe has no references (*name); write the value again")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: FBT001, FBT002, RUF100
        keys = [key.value for key, _ in node.value]
        double = sorted({str(key) for key in keys if keys.count(key) > 1})
        if double:
            raise yaml.YAMLError(f"{', '.join(double)} stands there twice: {node.start_mark}")
        return super().construct_mapping(node, deep=deep)


def read_yaml(text: str) -> dict[str, Any]:
    """Return the plain values of a recipe's text.

    Raises
    ------
    ConfigError
        If it is not YAML of plain values, or too long.
    """
    if len(text.encode(errors="replace")) > MAX_TEXT_BYTES:
        raise ConfigError(f"the recipe is longer than {MAX_TEXT_BYTES} bytes")
    try:
        values = yaml.load(text, Loader=_Loader)  # noqa: S506, RUF100  a safe loader
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"the recipe is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigError("a recipe is a mapping with the key `experiments`")
    return values


def parse_recipe(values: dict[str, Any]) -> Recipe:
    """Return the recipe that plain values describe.

    Raises
    ------
    ConfigError
        One line per fault: its path, what is wrong, and what is known there.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise ConfigError(_describe(error)) from None


def _describe(error: ValidationError) -> str:
    lines = []
    for fault in error.errors():
        path = ".".join(str(part) for part in fault["loc"] if part != "[key]") or "recipe"
        if fault["type"] == "extra_forbidden":
            model: type[BaseModel] = Recipe if len(fault["loc"]) == 1 else Experiment
            near = get_close_matches(str(fault["loc"][-1]), model.model_fields, n=1)
            known = ", ".join(model.model_fields)
            hint = f"did you mean {near[0]!r}?" if near else f"known here: {known}"
            lines.append(f"{path}: no such key; {hint}")
            continue
        message = fault["msg"].removeprefix("Value error, ")
        plain = isinstance(fault["input"], str | int | float) and fault["type"] != "value_error"
        lines.append(f"{path}: {message}" + (f"; got {fault['input']!r}" if plain else ""))
    return "\n".join(lines)
