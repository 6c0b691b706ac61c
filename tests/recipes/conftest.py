"""Recipes in a temporary folder, and a Dask cluster in threads to run them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from distributed import Client

from alignment.recipes import process
from alignment.recipes.frozen import Frozen, freeze, load


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """Two workers, a thread each, in this process."""
    with Client(
        processes=False,
        n_workers=2,
        threads_per_worker=1,
        resources={"gpu": 1},
        dashboard_address=":0",
    ) as client:
        yield client
    process.end_idle()


@pytest.fixture
def recipe(tmp_path: Path) -> Callable[..., Frozen]:
    """Return a function that freezes a recipe of the given YAML and files."""

    def make(text: str, **files: str) -> Frozen:
        for name, content in files.items():
            (tmp_path / f"{name}.py").write_text(content)
        (tmp_path / "recipe.yaml").write_text(text)
        return load(freeze(tmp_path / "recipe.yaml", str(tmp_path / "store")))

    return make
