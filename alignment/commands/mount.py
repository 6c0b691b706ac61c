"""A prefix in object storage mounted as a read-only folder, for programs that only know files."""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alignment.errors import ConfigError
from storage.cache.origin import ChangedError
from storage.cache.tree import Node, Tree
from storage.errors import AccessError, MissingError, StorageError


def mount(tree: Tree, folder: str | Path, *, ready: Callable[[], None] | None = None) -> None:
    """Show a tree of files at `folder` until it is unmounted (``fusermount -u``) or interrupted.

    Raises
    ------
    ConfigError
        If FUSE is not here, or the folder does not exist or is not empty.
    """
    place = Path(folder)
    if not place.is_dir() or any(place.iterdir()):
        raise ConfigError(f"{place} is not an empty folder; make one to mount on")
    fuse = _fuse()
    tree.node("")
    tree.names("")  # an error in the URI or credentials shows here, not at the first `ls`
    try:
        fuse.FUSE(
            _operations(fuse, tree, ready),
            str(place),
            foreground=True,
            ro=True,
            fsname="petalign",
            auto_cache=True,
            default_permissions=True,
        )
    except RuntimeError as error:
        raise ConfigError(
            f"FUSE refused to mount on {place} (code {error}); see its message above, or copy the "
            "files instead: petalign fs sync URI DEST"
        ) from None


def _fuse() -> Any:
    """Return the module mfusepy, or say what is missing."""
    instead = "or copy the files instead: petalign fs sync URI DEST"
    try:
        import mfusepy
    except ImportError:
        raise ConfigError(f"mounting needs pip install 'petalign[mount]', {instead}") from None
    except OSError:
        raise ConfigError(
            f"mounting needs libfuse: apt-get install fuse3 libfuse2 (or as your system calls it), "
            f"{instead}"
        ) from None
    if not Path("/dev/fuse").exists():
        raise ConfigError(f"this machine has no /dev/fuse (a container?); add it, {instead}")
    return mfusepy


def _operations(fuse: Any, tree: Tree, ready: Callable[[], None] | None) -> Any:
    class Operations(fuse.Operations):  # type: ignore[misc]
        """What the kernel asks; a file handle keeps the version that was opened."""

        use_ns = True

        def __init__(self) -> None:
            self.open_files: dict[int, tuple[str, Node]] = {}
            self.guard = threading.Lock()
            self.next_handle = 1

        def init(self, path: str) -> None:
            """Say that the mount is there."""
            if ready is not None:
                ready()

        def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
            """Return size and kind of a file."""
            with _errors(fuse):
                return _attributes(tree.node(path.strip("/")))

        def readdir(self, path: str, fh: int) -> list[str]:
            """Return the names in a folder."""
            with _errors(fuse):
                return [".", "..", *tree.names(path.strip("/"))]

        def open(self, path: str, flags: int) -> int:
            """Begin to read one version of a file."""
            if flags & os.O_ACCMODE != os.O_RDONLY:
                raise fuse.FuseOSError(errno.EROFS)
            with _errors(fuse):
                node = tree.node(path.strip("/"))
            with self.guard:
                handle = self.next_handle
                self.next_handle += 1
                self.open_files[handle] = (path.strip("/"), node)
            return handle

        def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
            """Return bytes of an open file."""
            name, node = self.open_files[fh]
            with _errors(fuse):
                return tree.read(name, node.version, offset, size).tobytes()

        def release(self, path: str, fh: int) -> int:
            """Forget an open file."""
            with self.guard:
                self.open_files.pop(fh, None)
            return 0

        def statfs(self, path: str) -> dict[str, int]:
            """Return that nothing is free."""
            return {"f_bsize": 2**20, "f_frsize": 2**20, "f_blocks": 0, "f_bfree": 0, "f_bavail": 0}

    return Operations()


def _attributes(node: Node) -> dict[str, Any]:
    kind = stat.S_IFDIR | 0o555 if node.is_folder else stat.S_IFREG | 0o444
    time_ns = int(node.time_s * 1e9)
    return {
        "st_mode": kind,
        "st_nlink": 2 if node.is_folder else 1,
        "st_size": node.version.size,
        "st_blocks": -(-node.version.size // 512),
        "st_mtime": time_ns,
        "st_ctime": time_ns,
        "st_atime": time_ns,
        "st_uid": os.getuid(),
        "st_gid": os.getgid(),
    }


@contextmanager
def _errors(fuse: Any) -> Iterator[None]:
    """Turn the errors of storage into numbers of the file system."""
    try:
        yield
    except MissingError:
        raise fuse.FuseOSError(errno.ENOENT) from None
    except AccessError:
        raise fuse.FuseOSError(errno.EACCES) from None
    except ChangedError:
        raise fuse.FuseOSError(errno.ESTALE) from None
    except StorageError:
        raise fuse.FuseOSError(errno.EIO) from None
