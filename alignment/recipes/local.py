"""A whole recipe from one process: experiments one after another, their batches side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from alignment.blockwise import Client
from alignment.errors import StageFailed
from alignment.recipes.driver import run_batch
from alignment.recipes.frozen import Batch, Frozen, batches
from storage.ledger import StageState

Tell = Callable[[str, StageState], None]
"""Receives the title of a batch and its state."""


def run_recipe(
    frozen: Frozen,
    client: Client,
    *,
    programs: Mapping[str, str] | None = None,
    tell: Tell = lambda _title, _state: None,
) -> None:
    """Do every task of a recipe that has no record yet.

    Raises
    ------
    StageFailed
        If tasks failed; all that does not depend on them is done.
    """
    failed: dict[str, str] = {}
    parts = batches(frozen)

    def run(batch: Batch) -> str:
        try:
            run_batch(
                frozen.uri,
                batch.label,
                client,
                programs=programs,
                tell=lambda state: tell(batch.title, state),
            )
        except StageFailed as error:
            return str(error)
        return ""

    for name in frozen.recipe.order():
        if lacking := [other for other in frozen.experiment(name).depends_on if other in failed]:
            failed[name] = f"{name} was not begun: {lacking[0]} failed"
            continue
        own = [batch for batch in parts if batch.experiment == name]
        with ThreadPoolExecutor(len(own)) as drivers:
            if errors := [error for error in drivers.map(run, own) if error]:
                failed[name] = "; ".join(errors)
    if failed:
        raise StageFailed("; ".join(failed.values()))
