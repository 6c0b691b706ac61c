"""What `petalign recipe ps` and `check` print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from alignment.commands.console import out, print_json
from alignment.commands.recipe import as_json as plain
from alignment.errors import ConfigError
from alignment.recipes.frozen import load
from alignment.recipes.model import parse_recipe, read_yaml
from alignment.recipes.sampling import points
from alignment.recipes.states import RecipeState, known_ids, look
from storage.store import join, normalise_uri

STYLES = {"done": "green", "failed": "bold red", "running": "cyan", "stopped": "yellow"}


def print_recipes(store: str, *, as_json: bool) -> None:
    """List every recipe of a store."""
    uri = normalise_uri(store)
    states = [look(load(join(uri, key)), starts=False) for key in known_ids(uri)]
    if as_json:
        print_json([plain(state) for state in states])
        return
    if not states:
        out.print(f"no recipes in {uri}; start one: petalign recipe up FILE")
        return
    table = _table("id", "name", "state", "tasks")
    for state in states:
        table.add_row(state.id, state.name, _styled(state.state), f"{state.done}/{state.total}")
    out.print(table)


def print_recipe(state: RecipeState, tasks: list[dict[str, Any]], *, as_json: bool) -> None:
    """List a recipe's experiments, and its tasks if there are any to list."""
    if as_json:
        print_json(plain(state) | ({"tasks": tasks} if tasks else {}))
        return
    table = _table("experiment", "state", "tasks", "failed", "starts", "seconds")
    for one in state.experiments:
        table.add_row(
            one.name,
            _styled(one.state),
            f"{one.done}/{one.total}",
            str(one.failed),
            str(one.starts),
            f"{one.seconds:.1f}",
        )
    out.print(table)
    for one in state.experiments:
        if one.error:
            out.print(f"{one.name}: {one.error}", markup=False)
    for row in tasks:
        told = row.get("result") or row.get("error") or ""
        out.print(f"{row['task']}  {row['state']}  {row['parameters']}  {told}", markup=False)


def print_check(file: Path, *, as_json: bool) -> None:
    """Print the experiments of a recipe file in their order, and how many tasks each has."""
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"cannot read the recipe {file}: {error}") from None
    recipe = parse_recipe(read_yaml(text))
    counts = {name: len(points(name, recipe.experiments[name])) for name in recipe.order()}
    if as_json:
        print_json(counts)
        return
    table = _table("experiment", "tasks", "at a time", "after")
    for name, count in counts.items():
        one = recipe.experiments[name]
        at_a_time = f"1 group of {one.workers}" if one.gang else str(one.workers)
        table.add_row(name, str(count), at_a_time, ", ".join(one.depends_on))
    out.print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column)
    return table


def _styled(state: str) -> str:
    style = STYLES.get(state)
    return f"[{style}]{state}[/]" if style else state
