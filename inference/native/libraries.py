"""Find, check and load the compiled libraries of one set of sources, one for each width of vectors.

A library is used only where it was built from the sources that lie beside it, and where the
processor has its vectors. Each has two functions for that, ``<prefix>_sources`` and
``<prefix>_widest``.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from inference.native.builder import ISAS, Sources

_log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Libraries:
    """The libraries of some sources.

    Parameters
    ----------
    sources : Sources
        What they are built from.
    prefix : str
        Of the names of their functions.
    declare : callable
        Tells ctypes what the functions of a library take and return.
    missing : str
        What the user lacks without them, for the log.
    """

    sources: Sources
    prefix: str
    declare: Callable[[ctypes.CDLL], None]
    missing: str
    _loaded: dict[str, ctypes.CDLL | None] = field(default_factory=dict)

    def library(self, isa: str) -> ctypes.CDLL | None:
        """Load the library for one width of vectors, one of `ISAS`; once in a process.

        Returns
        -------
        ctypes.CDLL or None
            None where it was not built, or from other sources than lie here (one line in the log
            says so), or where this processor doesn't have such vectors.
        """
        if isa not in self._loaded:
            self._loaded[isa] = self._load(isa) if self._has(isa) else None
        return self._loaded[isa]

    def widest(self) -> str | None:
        """Return the widest vectors that this processor has a library for; None if none is."""
        return next((isa for isa in reversed(ISAS) if self.library(isa) is not None), None)

    def _has(self, isa: str) -> bool:
        """Return whether the processor has such vectors; all have the first, which can tell."""
        if isa == ISAS[0]:
            return True
        first = self.library(ISAS[0])
        return first is not None and self._call(first, "widest") >= ISAS.index(isa)

    def _load(self, isa: str) -> ctypes.CDLL | None:
        path = self.sources.library(isa)
        try:
            loaded = ctypes.CDLL(str(path))
        except OSError:
            _log.warning("%s is not built: %s", path.name, self.missing)
            return None
        if self._call(loaded, "sources", ctypes.c_char_p).decode() != self.sources.digest():
            _log.warning("%s was built from other sources; run `make install`", path.name)
            return None
        self.declare(loaded)
        return loaded

    def _call(self, library: ctypes.CDLL, name: str, returns: type = ctypes.c_int) -> Any:
        function = getattr(library, f"{self.prefix}_{name}")
        function.restype = returns
        return function()
