"""How much memory a piece of a test takes at its peak."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def at_most_mb(limit_mb: float) -> Iterator[None]:
    """Fail if the resident memory rises by more than this above what it is now."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    except OSError:
        pytest.skip("/proc/self/clear_refs cannot be written here: no peak to measure")
    before = _status_mb("VmRSS")
    yield
    grown = _status_mb("VmHWM") - before
    assert grown < limit_mb, f"the memory rose by {grown:.0f} MB"


def _status_mb(name: str) -> float:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1000
