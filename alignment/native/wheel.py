"""Put the compiled kernel into the wheel: a hook of hatchling, run by ``pip wheel``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import sys_tags


class KernelHook(BuildHookInterface):  # type: ignore[misc]
    """Compiles the kernel beside its sources and marks the wheel as made for this platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the libraries; an editable installation finds those that `make install` makes."""
        if version == "editable":
            return
        sys.path.insert(0, self.root)  # the project itself is not installed while it is built
        try:
            from alignment.native import library_path
            from alignment.native.build import build, isas
        finally:
            sys.path.remove(self.root)
        if not build():
            return  # a wheel for every platform, which cannot relax
        root = Path(self.root)
        build_data["artifacts"] += [library_path(i).relative_to(root).as_posix() for i in isas()]
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{next(iter(sys_tags())).platform}"
