"""What the supervisor knows, in ``platform.json`` for every other process to read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from alignment.config import Config
from alignment.platform.config import PlatformConfig
from alignment.platform.errors import PlatformError
from alignment.platform.processes import ProcessId

Status = Literal["waiting", "starting", "ready", "restarting", "failed"]


class ServiceState(Config):
    """One service as the supervisor last saw it."""

    name: str
    title: str
    """What a person calls it."""
    status: Status = "waiting"
    process: ProcessId | None = None
    started: float = 0.0
    """When `process` was started, s since 1970."""
    restarts: int = 0
    """How often it died and was started again since the platform came up."""
    message: str = ""
    """Why it is not ready, or why it was given up."""


class PlatformState(Config):
    """Everything that `up`, `down` and `doctor` need to know about what runs."""

    config: PlatformConfig
    supervisor: ProcessId | None = None
    services: tuple[ServiceState, ...] = ()

    def service(self, name: str) -> ServiceState | None:
        """Return the state of one service, or None if it is unknown."""
        return next((service for service in self.services if service.name == name), None)


class Home:
    """The files of a platform, all below one folder that only its owner may enter."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "config.json"
        self.state = folder / "platform.json"
        self.credentials = folder / "credentials.json"
        self.up_lock = folder / "up.lock"
        self.supervisor_lock = folder / "supervisor.lock"
        self.logs = folder / "logs"
        self.s3 = folder / "s3"
        self.dask = folder / "dask"
        self.airflow = folder / "airflow"
        self.bytecode = folder / "bytecode"

    def create(self) -> None:
        """Make the folders; what exists is left as it is."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            for folder in (self.logs, self.s3, self.dask, self.airflow):
                folder.mkdir(exist_ok=True, mode=0o700)
            ignore = self.folder / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
        except OSError as error:
            raise PlatformError(
                f"cannot make the platform's folder {self.folder}: {error.strerror}; "
                "set PETALIGN_HOME to a folder that you may write"
            ) from None

    def log(self, service: str) -> Path:
        """Return the file that a service prints to."""
        return self.logs / f"{service}.log"


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step; only its owner may read it."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


def read_state(home: Home) -> PlatformState | None:
    """Return what the supervisor last wrote, or None if the platform was never up or is down.

    Raises
    ------
    PlatformError
        If the file cannot be understood, for instance after an upgrade with the platform up.
    """
    try:
        return PlatformState.model_validate_json(home.state.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not of this version"
        raise PlatformError(
            f"cannot read {home.state}: {reason}. End the processes it names, then delete it"
        ) from None


def last_lines(log: Path, count: int = 12) -> str:
    """Return the end of a log since its service was last started, or a word if it is empty."""
    try:
        text = log.read_bytes()[-20_000:].decode(errors="replace")
    except OSError:
        return "(no log)"
    lines = text.rpartition("\n--- started ")[2].splitlines()[1:]
    return "\n".join(lines[-count:]) or "(the log is empty)"
