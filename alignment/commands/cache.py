"""The cache that the environment or the command line names; nothing below looks there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alignment.errors import ConfigError

if TYPE_CHECKING:
    from storage.cache import BlockCache

CacheFolder = Annotated[
    Path | None,
    typer.Option("--cache", envvar="PETALIGN_CACHE", help="Folder on a fast local disk."),
]
CacheBytes = Annotated[
    str,
    typer.Option(
        "--cache-bytes", envvar="PETALIGN_CACHE_BYTES", help="Its largest size, e.g. 200GB."
    ),
]
DEFAULT_BYTES = "20GB"

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKMGT]?)(i?)B?")


def parse_bytes(text: str) -> int:
    """Return a number of bytes.

    >>> parse_bytes("200GB"), parse_bytes("1.5 GiB"), parse_bytes("4096")
    (200000000000, 1610612736, 4096)

    Raises
    ------
    ConfigError
        If it is none.
    """
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{text!r} is no size; expected a number with kB, MB, GB, TB or GiB")
    power = " KMGT".index(match[2].upper() or " ")
    return int(float(match[1]) * (1024 if match[3] else 1000) ** power)


def chosen_cache(folder: Path | None, max_bytes: str) -> BlockCache | None:
    """Return the cache in `folder`, None if no folder is named."""
    if folder is None:
        return None
    from storage.cache import open_cache

    return open_cache(str(folder.expanduser().resolve()), parse_bytes(max_bytes))
