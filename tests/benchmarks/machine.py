"""What a table of figures says of the machine that they were measured on."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path


def machine(*libraries: str) -> str:
    """Return cores, processor, load, and the versions of Python and of some libraries."""
    model = ""
    with Path("/proc/cpuinfo").open() as lines:
        model = next((line.split(":")[1].strip() for line in lines if "model name" in line), "")
    versions = ", ".join(f"{name} {version(name)}" for name in libraries)
    return (
        f"{os.cpu_count()} cores ({model or platform.machine()}), load {os.getloadavg()[0]:.1f}; "
        f"Python {sys.version.split()[0]}, {versions}."
    )
