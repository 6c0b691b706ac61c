"""What `petalign plan` says of a renderer's memory is what a renderer takes."""

import json
import subprocess
import sys

import pytest

from alignment.planning.work import render_bytes
from alignment.runs import load
from tests.benchmarks.render.volume import ready_run


@pytest.mark.slow
def test_a_shard_takes_the_memory_that_the_plan_says(tmp_path):
    """The shard of 32 x 2048 x 2048 of the default settings, in a process of its own."""
    run_uri = ready_run(tmp_path, 32, {})
    found = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.render.shard", run_uri],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    planned = render_bytes((32, 2048, 2048), load(run_uri).config)
    assert json.loads(found.stdout)["peak_bytes"] == pytest.approx(planned, rel=0.2)
