"""A disk that fails at the n-th call: the file:// side of the proxy's faults.

Opening, linking, renaming, making folders, deleting and listing are caught by an audit hook;
writes and fsync, which raise no audit event, by wrapping what `storage.durable` calls. Only what
lies below one folder counts.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from pathlib import Path
from typing import Any

from storage.durable import is_unfinished

KINDS = ("EIO", "ENOSPC", "half written", "kill before", "kill half written")
"""`half written` strikes at writes only: half of the bytes arrive, then the disk is full."""

_EVENTS = {
    "open": "open", "os.link": "link", "os.rename": "rename", "os.mkdir": "mkdir",
    "os.remove": "remove", "os.listdir": "list", "os.scandir": "list",
}  # fmt: skip
_OPEN, _FSYNC = io.open, os.fsync


class Disk:
    """Counts the calls below a folder, and lets the n-th fail in one way."""

    def __init__(self, folder: str, kind: str = "", at: int = 0) -> None:
        self.folder = folder
        self.kind = kind
        self.at = at
        self.calls: list[str] = []
        """What was called: verb and path below the folder, of unfinished copies the final one."""

    def install(self) -> None:
        """Strike from now on, in this process and until its end."""
        sys.addaudithook(self._hook)
        io.open = self._open  # type: ignore[assignment]  # what pathlib calls
        os.fsync = self._fsync  # type: ignore[assignment]

    def note(self, verb: str, path: str) -> bool:
        """Count a call; raise or die if it is the one, or return True for half a write."""
        if not path.startswith(self.folder + "/"):
            return False
        name = Path(path).relative_to(self.folder).as_posix()
        self.calls.append(f"{verb} {_final(name)}")
        if len(self.calls) != self.at:
            return False
        if "half written" in self.kind and verb == "write":
            return True
        if self.kind.startswith("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        code = errno.EIO if self.kind == "EIO" else errno.ENOSPC
        raise OSError(code, os.strerror(code), path)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event not in _EVENTS:
            return
        path = arguments[1] if event in ("os.link", "os.rename") else arguments[0]
        if isinstance(path, str | os.PathLike):
            self.note(_EVENTS[event], os.fspath(path))

    def _open(self, file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if mode != "xb":
            return _OPEN(file, mode, *args, **kwargs)
        return io.BufferedWriter(_Failing(file, self))

    def _fsync(self, handle: int) -> None:
        self.note("fsync", str(Path(f"/proc/self/fd/{handle}").readlink()))
        _FSYNC(handle)


class _Failing(io.FileIO):
    """A file whose writes can fail half way."""

    def __init__(self, file: Any, disk: Disk) -> None:
        super().__init__(file, "xb")
        self._disk = disk
        self._full = False

    def write(self, data: Any) -> int:
        """Write, or write half and fail."""
        if self._full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if not self._disk.note("write", str(self.name)):
            return super().write(data) or 0
        super().write(memoryview(data)[: len(data) // 2])
        if self._disk.kind.startswith("kill"):
            os.kill(os.getpid(), signal.SIGKILL)
        self._full = True
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _final(name: str) -> str:
    """Return the file that an unfinished copy or a lock belongs to; other names as they are."""
    folder, slash, last = name.rpartition("/")
    if is_unfinished(last):
        last = last[1:].removesuffix(".lock")
        last = last if not last.endswith(".partial") else ".".join(last.split(".")[:-2])
    return folder + slash + last
