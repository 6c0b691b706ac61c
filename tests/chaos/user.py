"""What a person does who sees that the platform is not as it should be: `petalign up`."""

from __future__ import annotations

import threading
import time
from collections import Counter
from contextlib import suppress

from alignment.platform.config import PlatformConfig
from alignment.platform.errors import PlatformError
from alignment.platform.lifecycle import up
from alignment.platform.processes import is_alive
from alignment.platform.state import Home, read_state

REACTS_S = 5.0
"""A person takes so long to notice."""


class User:
    """Brings back what does not come back by itself: the supervisor, and what it gave up."""

    def __init__(self, config: PlatformConfig) -> None:
        self._config = config
        self._since = 0.0
        self._acting: threading.Thread | None = None
        self.acts: Counter[str] = Counter()
        """How often the user had to do what."""

    def look(self) -> None:
        """Look at the platform; act if it has been in need for a while."""
        need = self._need()
        if not need:
            self._since = 0.0
            return
        self._since = self._since or time.monotonic()
        if time.monotonic() - self._since < REACTS_S:
            return
        self._since = 0.0
        if self._acting is None or not self._acting.is_alive():
            self.acts[need] += 1
            self._acting = threading.Thread(target=self._up, daemon=True)
            self._acting.start()

    def _up(self) -> None:
        with suppress(PlatformError):  # then there is still need, and it is tried again
            up(self._config, timeout_s=300.0)

    def _need(self) -> str:
        try:
            state = read_state(Home(self._config.home))
        except PlatformError:
            return "platform.json cannot be read"
        if state is None or not is_alive(state.supervisor):
            return "supervisor dead"
        failed = [service.name for service in state.services if service.status == "failed"]
        return f"given up: {', '.join(failed)}" if failed else ""
