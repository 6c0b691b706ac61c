"""Put the compiled kernels into the wheel: a hook of hatchling, run by ``pip wheel``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from packaging.tags import sys_tags


class KernelHook(BuildHookInterface):  # type: ignore[misc]
    """Compiles the kernels beside their sources and marks the wheel as made for this platform."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the libraries; an editable installation finds those that `make install` makes."""
        if version == "editable":
            return
        sys.path.insert(0, self.root)  # the project itself is not installed while it is built
        try:
            import alignment.native
            import inference.native
            from inference.native.builder import build, isas
        finally:
            sys.path.remove(self.root)
        all_sources = alignment.native.SOURCES, inference.native.SOURCES
        if not all(map(build, all_sources)):
            return  # a wheel for every platform, which cannot relax, nor run the engine
        root = Path(self.root)
        made = [sources.library(isa) for sources in all_sources for isa in isas()]
        build_data["artifacts"] += [path.relative_to(root).as_posix() for path in made]
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-{next(iter(sys_tags())).platform}"
