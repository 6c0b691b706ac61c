"""The commit protocol keeps its promises in any order of events; see `machine`."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.faults import server
from tests.faults.disk_sweep import FOLDER
from tests.faults.machine import CommitProtocol


def _settings(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )


@pytest.mark.parametrize(
    ("examples", "steps"),
    [(10, 25), pytest.param(150, 50, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])],
)
def test_the_protocol_holds_on_disk(examples, steps):
    folders: list[str] = []

    class OnDisk(CommitProtocol):
        @staticmethod
        def new_root() -> str:
            folders.append(tempfile.mkdtemp(prefix="petalign-machine-", dir=FOLDER))
            return Path(folders[-1]).as_uri()

        def teardown(self) -> None:
            while folders:
                shutil.rmtree(folders.pop())

    run_state_machine_as_test(OnDisk, settings=_settings(examples, steps))


@pytest.mark.parametrize(
    ("examples", "steps"),
    [(3, 12), pytest.param(20, 40, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])],
)
def test_the_protocol_holds_in_s3(s3, examples, steps):
    class InS3(CommitProtocol):
        new_root = staticmethod(server.new_root)

    run_state_machine_as_test(InS3, settings=_settings(examples, steps))
