"""The proxy between a platform and its S3 server: breaks requests, and sees every commit."""

from __future__ import annotations

import time
from collections import defaultdict

from tests.faults.fault import Fault, Operation
from tests.faults.proxy import FaultProxy

PROGRESS = ("/commits/", "/manifests/", "/LATEST.json")


class Gate(FaultProxy):
    """A fault proxy that keeps the times at which runs got further."""

    def __init__(self, upstream: str, port: int = 0) -> None:
        self.progress: dict[str, list[float]] = defaultdict(list)
        """Times (s since 1970) of requests that finish a unit, by volume."""
        super().__init__(upstream, port)

    def note(self, operation: Operation) -> Fault | None:
        """Count a request; remember it if it records something and is let through."""
        fault = super().note(operation)
        if operation.method == "PUT" and fault is None:
            for part in PROGRESS:
                if part in operation.key:
                    volume = operation.key.partition("/runs/")[0].removesuffix("/LATEST.json")
                    self.progress[volume].append(time.time())
        return fault

    @property
    def fault(self) -> Fault | None:
        """The fault that is installed."""
        return self._fault
