"""How long Airflow's DAG processor takes to parse each DAG file, once Airflow is imported."""

from __future__ import annotations

import runpy
from importlib.util import find_spec
from pathlib import Path

import pytest

FILES = sorted((Path(__file__).parents[2] / "dags").glob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_parse(benchmark, file):
    if find_spec("airflow") is None:
        pytest.skip("needs Airflow: pip install 'petalign[airflow]'")
    import airflow.sdk  # noqa: F401

    parsed = benchmark(runpy.run_path, str(file))
    assert parsed["__doc__"]
