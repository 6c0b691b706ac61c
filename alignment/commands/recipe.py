"""What `petalign recipe` does: start, watch and stop recipes, on the platform or here."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from alignment.errors import ConfigError, StageFailed
from alignment.platform.config import platform_config
from alignment.platform.errors import PlatformError, RequestRefused
from alignment.platform.lifecycle import PlatformInfo, info
from alignment.recipes.frozen import Frozen, freeze, load, plan
from alignment.recipes.states import RecipeState, find, go_on, look
from storage.ledger import StageState
from storage.store import join, normalise_uri, read_json, replace_json

DAG_ID = "recipe"
FOLDER = "recipes"
POLL_S = 1.0
GRACE_S = 120.0
"""How long Airflow may be silent, while it is restarted, before following is given up."""

Tell = Callable[[str, int, int], None]
"""Receives an experiment's batch, how many of its tasks are done, and how many there are."""


def default_store() -> str:
    """Return where recipes are kept: in the platform's bucket if it is up, else in its home."""
    config = platform_config(os.environ)
    platform = info(config)
    return f"s3://{platform.bucket}/{FOLDER}" if platform else f"file://{config.home}/{FOLDER}"


def parse_programs(given: list[str]) -> dict[str, str]:
    """Return the programs of ``NAME=/path`` options.

    Raises
    ------
    ConfigError
        If one is not of this form, or not there.
    """
    found = {}
    for item in given:
        name, sign, path = item.partition("=")
        if not sign or not name.isidentifier() or not Path(path).is_absolute():
            raise ConfigError(f"--program {item!r}: expected NAME=/absolute/path")
        if name in ("python", "petalign") or not os.access(path, os.X_OK):
            raise ConfigError(f"--program {item!r}: {path} cannot be run, or the name is taken")
        found[name] = path
    return found


def prepare(file: Path, store: str | None, *, anew: bool) -> Frozen:
    """Freeze a recipe and let it be started; see `frozen.freeze`."""
    frozen = load(freeze(file, store or default_store(), anew=anew))
    go_on(frozen)
    return frozen


def run_here(
    frozen: Frozen, *, workers: int | None, programs: Mapping[str, str], tell: Tell
) -> None:
    """Do a recipe with worker processes on this machine, without Airflow.

    Raises
    ------
    StageFailed
        If tasks failed; all that does not depend on them is done.
    """
    from alignment.blockwise import local_client
    from alignment.recipes.local import run_recipe

    planned = plan(frozen.uri)
    if refused := [p for p in planned["programs"] if p not in ("python", "petalign", *programs)]:
        raise ConfigError(
            f"the program {refused[0]!r} is not allowed; allow it with --program NAME=/path"
        )
    with local_client(workers or os.cpu_count() or 1) as client:
        run_recipe(frozen, client, programs=programs, tell=_teller(tell))


def _teller(tell: Tell) -> Callable[[str, StageState], None]:
    return lambda title, state: tell(title, state.blocks_done, state.blocks_total)


def trigger(frozen: Frozen) -> str:
    """Start the DAG `recipe` on the platform that is up; return the page of its run.

    Raises
    ------
    ConfigError
        If no platform is up, or the recipe lies where its workers cannot reach it.
    """
    platform = _platform()
    with platform.airflow() as airflow:
        _patiently(lambda: airflow.wait_for_dag(DAG_ID))
        # Should an answer be lost, two DAG runs share the recipe's batches.
        run_id = _patiently(lambda: airflow.trigger(DAG_ID, {"recipe": frozen.uri}))
        url = airflow.run_url(DAG_ID, run_id)
    replace_json(join(frozen.uri, "dag_run.json"), {"run_id": run_id, "url": url})
    return url


def _patiently[T](call: Callable[[], T]) -> T:
    """Return what a request to Airflow returns, though it may be silent for a while."""
    begun = time.monotonic()
    while True:
        try:
            return call()
        except RequestRefused:
            raise
        except PlatformError:
            if time.monotonic() - begun > GRACE_S:
                raise
            time.sleep(POLL_S)


def _platform() -> PlatformInfo:
    platform = info(platform_config(os.environ))
    if platform is None:
        raise ConfigError(
            "no platform is up; start it with `petalign up`, or run the recipe on this machine "
            "with --local"
        )
    return platform


def follow(frozen: Frozen, *, tell: Tell) -> RecipeState:
    """Wait for the end of a recipe that Airflow runs.

    Raises
    ------
    StageFailed
        If tasks failed, or it was stopped.
    """
    run_id = read_json(join(frozen.uri, "dag_run.json"))["run_id"]
    heard = time.monotonic()
    with _platform().airflow() as airflow:
        while True:
            state = look(frozen, starts=False)
            for one in state.experiments:
                tell(one.name, one.done, one.total)
            try:
                dag_state = airflow.state(DAG_ID, run_id)
                heard = time.monotonic()
            except PlatformError:
                if time.monotonic() - heard > GRACE_S:
                    raise
                dag_state = "unknown"
            if state.state == "done" and dag_state in ("success", "unknown"):
                return state
            if dag_state == "failed":
                raise StageFailed(reason(look(frozen, starts=False)))
            time.sleep(POLL_S)


def reason(state: RecipeState) -> str:
    """Return why a recipe did not get to its end."""
    told = [one.error for one in state.experiments if one.error]
    return "; ".join(told) or f"recipe {state.id} is {state.state}; see its DAG run in Airflow"


def split_task(task: str) -> tuple[str, str, str]:
    """Return id, experiment and number of a task's name, ``a1b2c3/search/42``.

    Raises
    ------
    ConfigError
        If it is none.
    """
    parts = task.split("/")
    if len(parts) != 3:
        raise ConfigError(f"expected a task as ID/EXPERIMENT/NUMBER, got {task!r}")
    return parts[0], parts[1], parts[2]


def find_recipe(store: str | None, key: str) -> Frozen:
    """Return the recipe of an id in the given or default store."""
    return find(normalise_uri(store or default_store()), key)


def as_json(state: RecipeState) -> dict[str, Any]:
    """Return a state as plain values."""
    return {**asdict(state), "done": state.done, "total": state.total}
