"""Recipes: experiments with parameters, run as processes on the workers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from alignment.commands.console import OK, PARTIAL, err, exit_codes, out, print_json
from alignment.verbs.options import Json, Workers

app = typer.Typer(no_args_is_help=True, help="Run experiments with parameters on the workers.")

Store = Annotated[
    str | None,
    typer.Option(help="Folder of all recipes; the platform's bucket, or its home, by default."),
]


@app.command()
def up(
    file: Annotated[Path, typer.Argument(help="The recipe, a YAML file.")],
    local: Annotated[
        bool, typer.Option("--local", help="Run it here, without Airflow, to its end.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Wait for the end of what Airflow runs.")
    ] = False,
    anew: Annotated[
        bool, typer.Option("--anew", help="Begin again, even if the same recipe ran before.")
    ] = False,
    program: Annotated[
        list[str] | None,
        typer.Option(help="NAME=/path that --local allows besides python and petalign."),
    ] = None,
    workers: Workers = None,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """Start a recipe, or go on with it: what is done is not done again."""
    from alignment.commands import recipe
    from alignment.commands.console import steps
    from alignment.recipes.states import look

    with exit_codes():
        programs = recipe.parse_programs(program or [])
        frozen = recipe.prepare(file, store, anew=anew)
        if not local:
            url = recipe.trigger(frozen)
            err.print(f"recipe {frozen.key}: {url}")
    hint = f"the finished part is kept; go on with: petalign recipe up {file}"
    if local or follow:
        with exit_codes(hint=hint), steps(quiet=as_json) as tell:
            if local:
                recipe.run_here(frozen, workers=workers, programs=programs, tell=tell)
            else:
                recipe.follow(frozen, tell=tell)
    if as_json:
        print_json(recipe.as_json(look(frozen)))
    else:
        out.print(frozen.key)


@app.command()
def ps(
    key: Annotated[str | None, typer.Argument(metavar="[ID]")] = None,
    tasks: Annotated[bool, typer.Option("--tasks", help="List the recipe's tasks, too.")] = False,
    store: Store = None,
    as_json: Json = False,
) -> None:
    """List the recipes, or what became of the experiments of one; exit 4 if it is not done."""
    from alignment.commands import recipe
    from alignment.commands.recipetables import print_recipe, print_recipes
    from alignment.recipes.states import look
    from alignment.recipes.states import tasks as tasks_of

    with exit_codes():
        if key is None:
            print_recipes(store or recipe.default_store(), as_json=as_json)
            return
        frozen = recipe.find_recipe(store, key)
        state = look(frozen)
        listed = [row for e in state.experiments for row in tasks_of(frozen, e.name)] * tasks
        print_recipe(state, listed, as_json=as_json)
    raise typer.Exit(OK if state.state == "done" else PARTIAL)


@app.command()
def logs(
    task: Annotated[str, typer.Argument(metavar="TASK", help="As in a1b2c3/search/42.")],
    store: Store = None,
) -> None:
    """Print what a task printed: at its last start, or so far."""
    import sys

    from alignment.commands import recipe
    from alignment.recipes.states import read_log

    with exit_codes():
        key, experiment, number = recipe.split_task(task)
        sys.stdout.write(read_log(recipe.find_recipe(store, key), experiment, number))


@app.command()
def down(key: Annotated[str, typer.Argument(metavar="ID")], store: Store = None) -> None:
    """Stop a recipe: nothing new begins, running processes end within seconds."""
    from alignment.commands import recipe
    from alignment.recipes.states import stop

    with exit_codes():
        frozen = recipe.find_recipe(store, key)
        running = stop(frozen)
    what = f"under way were {', '.join(running)}" if running else "nothing was under way"
    out.print(f"recipe {key} is stopped; {what}. Go on with it by `petalign recipe up`")


@app.command()
def check(file: Path, as_json: Json = False) -> None:
    """Check a recipe and print how many tasks it has; runs and writes nothing."""
    from alignment.commands.recipetables import print_check

    with exit_codes():
        print_check(file, as_json=as_json)


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for editors."""
    from alignment.recipes.model import Recipe

    print_json(Recipe.model_json_schema())
