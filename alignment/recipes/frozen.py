"""A recipe in the store: what was asked for, never changed afterwards.

::

    <store>/<id>/recipe.json                     the recipe and the digests of its files
                 files/<name>
                 points/<experiment>.json        the values of every task, drawn once
                 state/<experiment>.<nnn>.json   how far a batch is (storage.ledger)
                 starts/<experiment>/<task>/     a sign of each start of a process
                 logs/<experiment>/<task>/       what each start printed
                 failures/<experiment>/<task>.json   the last failure of a task, if it had any
                 records/<experiment>/<task>.json    left once, when a task has succeeded
                 out/<experiment>/<task>/<start>/    what it left in ./out
                 shared/<experiment>/            for tasks that write the store themselves
                 done/<experiment>.json          all its records, for those that depend on it
                 stop.json                       a user stopped it
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from blake3 import blake3

from alignment.errors import ConfigError
from alignment.recipes.model import Experiment, Recipe, parse_recipe, read_yaml
from alignment.recipes.sampling import Point, points
from alignment.recipes.template import fill, uris_in
from storage.errors import ConflictError, CorruptError
from storage.store import canonical_json, create_bytes, create_json, join, normalise_uri, read_json

MAX_FILE_BYTES = 16 * 2**20
BATCH = 512
"""Tasks of one driver, and so of one Airflow task."""
MAX_BATCHES = 1000
"""Of a recipe: Airflow maps a task to at most 1,024."""


class Batch(NamedTuple):
    """A part of an experiment's tasks, done by one driver."""

    experiment: str
    number: int
    start: int
    stop: int
    window: int
    """Tasks that run at a time."""

    @property
    def label(self) -> str:
        """Return its name in the ledger."""
        return f"{self.experiment}.{self.number:03d}"

    @property
    def title(self) -> str:
        """Return its name for people."""
        if self.stop - self.start == 1:
            return f"{self.experiment} {task_name(self.start)}"
        return f"{self.experiment} {task_name(self.start)}-{task_name(self.stop - 1)}"


@dataclass(frozen=True)
class Frozen:
    """A recipe as it lies in the store."""

    uri: str
    recipe: Recipe
    files: dict[str, str]
    """blake3 of every file by its name."""

    @property
    def key(self) -> str:
        """The six letters that people name it by."""
        return self.uri.rpartition("/")[2]

    def experiment(self, name: str) -> Experiment:
        """Return an experiment.

        Raises
        ------
        ConfigError
            If there is none of this name; says which there are.
        """
        if name not in self.recipe.experiments:
            known = ", ".join(self.recipe.experiments)
            raise ConfigError(f"recipe {self.key} has no experiment {name!r}; there are {known}")
        return self.recipe.experiments[name]


def task_name(index: int) -> str:
    """Return the name of a task, sorted as its number.

    >>> task_name(7)
    '00007'
    """
    return f"{index:05d}"


def freeze(file: Path, store: str, *, anew: bool = False) -> str:
    """Check a recipe and lay it into the store; return its URI.

    The same recipe and files give the same URI, so that starting it again goes on with it.

    Parameters
    ----------
    anew : bool
        Give it a URI of its own: nothing of an earlier start counts.

    Raises
    ------
    ConfigError
        If anything in the recipe is wrong; nothing has been written then.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"cannot read the recipe {file}: {error}") from None
    raw = read_yaml(text)
    recipe = parse_recipe(raw)
    drawn = {name: points(name, one) for name, one in recipe.experiments.items()}
    check_fills(recipe, drawn)
    _batches(recipe, {name: len(values) for name, values in drawn.items()})
    contents = {name: _read_file(file.parent, name) for name in recipe.files}
    frozen = {
        "recipe": raw,
        "files": {name: blake3(data).hexdigest() for name, data in contents.items()},
        "anew": uuid.uuid4().hex if anew else "",
    }
    uri = _create(normalise_uri(store), frozen)
    for name, data in contents.items():
        create_bytes(join(uri, "files", name), data)
    for name, values in drawn.items():
        create_json(join(uri, "points", f"{name}.json"), values)
    return uri


def _read_file(folder: Path, name: str) -> bytes:
    path = folder / name
    try:
        if not path.resolve(strict=True).is_relative_to(folder.resolve()) or not path.is_file():
            raise ConfigError(f"files: {name} leads out of the recipe's folder, or is no file")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ConfigError(
                f"files: {name} has more than {MAX_FILE_BYTES} bytes; put data into the store"
            )
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"files: cannot read {path}: {error.strerror}") from None


def _create(store: str, frozen: dict[str, Any]) -> str:
    """Write ``recipe.json`` below a name of six letters that nothing else has."""
    for attempt in range(20):
        digest = hashlib.sha256(canonical_json("", {**frozen, "attempt": attempt})).digest()
        uri = join(store, base64.b32encode(digest).decode().lower()[:6])
        try:
            create_json(join(uri, "recipe.json"), frozen)
        except ConflictError:
            continue
        return uri
    raise ConfigError(f"{store} has no free name for this recipe; choose another --store")


@lru_cache(maxsize=16)
def load(uri: str) -> Frozen:
    """Read a recipe; cached, because it never changes.

    Raises
    ------
    MissingError
        If there is none.
    ConfigError
        If it is not a valid recipe.
    """
    frozen = read_json(join(uri, "recipe.json"))
    try:
        recipe, files = parse_recipe(frozen["recipe"]), dict(frozen["files"])
    except (KeyError, TypeError, AttributeError) as error:
        raise CorruptError(f"{uri}/recipe.json does not hold a recipe: {error}") from None
    if set(files) != set(recipe.files):
        raise CorruptError(f"{uri}/recipe.json names other files than its recipe")
    return Frozen(normalise_uri(uri), recipe, files)


@lru_cache(maxsize=64)
def task_points(uri: str, experiment: str) -> list[Point]:
    """Return the values of every task of an experiment."""
    found = read_json(join(uri, "points", f"{experiment}.json"))
    names = set(load(uri).experiment(experiment).parameters)
    if not isinstance(found, list) or any(set(point) != names for point in found):
        raise CorruptError(f"{uri}/points/{experiment}.json does not fit its recipe")
    return found


def batches(frozen: Frozen) -> list[Batch]:
    """Return the parts in which the recipe is done, in the order of its dependencies."""
    counts = {name: len(task_points(frozen.uri, name)) for name in frozen.recipe.experiments}
    return _batches(frozen.recipe, counts)


def _batches(recipe: Recipe, counts: dict[str, int]) -> list[Batch]:
    found: list[Batch] = []
    for name in recipe.order():
        experiment, total = recipe.experiments[name], counts[name]
        parts = -(-total // BATCH)
        if not experiment.gang:  # windows together are `workers`, so there are no more parts
            parts = min(parts, experiment.workers)
        for k in range(parts):
            window = 1 if experiment.gang else (experiment.workers + k) // parts
            found.append(Batch(name, k, k * total // parts, (k + 1) * total // parts, window))
    if len(found) > MAX_BATCHES:
        raise ConfigError(
            f"the recipe makes {len(found)} batches, the limit is {MAX_BATCHES}: lower `workers` "
            "or the number of points"
        )
    return found


def plan(uri: str) -> dict[str, Any]:
    """Check all that a recipe would run, and return what Airflow has to know about it.

    Called on the cluster. A recipe that did not come from `freeze` is checked like any other.

    Returns
    -------
    dict
        ``batches``: label, title, number of tasks, and labels of the batches before each; ``uris``
        and ``programs``: what its commands name, for the caller to allow.
    """
    frozen = load(uri)
    names = frozen.recipe.experiments
    drawn = {name: task_points(frozen.uri, name) for name in names}
    parts = batches(frozen)
    labels = {name: [b.label for b in parts if b.experiment == name] for name in names}
    return {
        "batches": [
            {
                "batch": b.label,
                "title": b.title,
                "tasks": b.stop - b.start,
                "after": [x for name in names[b.experiment].depends_on for x in labels[name]],
            }
            for b in parts
        ],
        "uris": sorted(check_fills(frozen.recipe, drawn)),
        "programs": sorted({one.command[0] for one in names.values()}),
    }


def check_fills(recipe: Recipe, drawn: dict[str, list[Point]]) -> set[str]:
    """Fill every command once; return the URIs that appear."""
    found: set[str] = set()
    for name, experiment in recipe.experiments.items():
        for index, point in enumerate(drawn[name]):
            try:
                found |= uris_in(fill(experiment.command, point))
                fill(experiment.fetch, point)
            except ValueError as error:
                raise ConfigError(f"experiments.{name}, task {task_name(index)}: {error}") from None
        found |= uris_in(experiment.environment.values())
    return found


def find_batch(frozen: Frozen, label: str) -> Batch:
    """Return the batch of a label.

    Raises
    ------
    ConfigError
        If there is none.
    """
    for batch in batches(frozen):
        if batch.label == label:
            return batch
    raise ConfigError(f"recipe {frozen.key} has no batch {label!r}")


def tasks_of(batch: Batch) -> Iterator[str]:
    """Yield the names of a batch's tasks."""
    return map(task_name, range(batch.start, batch.stop))
