"""Local files for programs that know nothing of object storage: `fs mount` and `fs sync`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from alignment.commands.cache import DEFAULT_BYTES, CacheBytes, CacheFolder, chosen_cache
from alignment.commands.console import err, exit_codes, out, print_json
from alignment.errors import ConfigError

if TYPE_CHECKING:
    from storage.grid import Box

app = typer.Typer(
    no_args_is_help=True,
    help="Show or copy what lies in object storage as local files.",
)

_BOX = re.compile(r"(\d+):(\d+),(\d+):(\d+),(\d+):(\d+)")


@app.command()
def mount(
    uri: str,
    folder: Annotated[Path, typer.Argument(help="An empty folder.")],
    cache: CacheFolder = None,
    cache_bytes: CacheBytes = DEFAULT_BYTES,
    listing_s: Annotated[
        float, typer.Option(min=0, help="How long a folder's listing is believed, s.")
    ] = 10.0,
) -> None:
    """Show what lies below URI as read-only files, until Ctrl-C or `fusermount -u FOLDER`."""
    from alignment.commands import mount as fuse
    from storage.cache.tree import Tree

    def ready() -> None:
        err.print(f"{uri} is mounted on {folder}; end with Ctrl-C or: fusermount -u {folder}")

    with exit_codes():
        tree = Tree(uri, chosen_cache(cache, cache_bytes), listing_s=listing_s)
        fuse.mount(tree, folder, ready=ready)


@app.command()
def sync(
    uri: str,
    folder: Path,
    array: Annotated[
        str | None, typer.Option(help="With --box: the array below URI, e.g. aligned/0.")
    ] = None,
    box: Annotated[
        str | None, typer.Option(help="Only what this box needs: z0:z1,y0:y1,x0:x1 px.")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, max=256)] = 8,
    recheck: Annotated[
        bool, typer.Option("--recheck", help="Hash the files that are there already.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json")] = False,
) -> None:
    """Copy what lies below URI to local files, verified; run it again to go on or to update."""
    from storage.cache.mirror import mirror

    hint = "go on with the same command; what is finished is not copied again"
    with exit_codes(hint=hint):
        keys = None if array is None and box is None else keys_of_box(uri, array, parse_box(box))
        done = mirror(uri, folder, keys=keys, workers=workers, recheck=recheck, tell=_tell)
    if as_json:
        print_json(vars(done))
    else:
        note = f", {done.unverified} of them by their size alone" if done.unverified else ""
        out.print(
            f"{folder}: {done.copied} files copied ({done.bytes / 1e6:.1f} MB, verified{note}), "
            f"{done.kept} were there"
        )


def parse_box(text: str | None) -> Box | None:
    """Return the box that ``z0:z1,y0:y1,x0:x1`` means.

    >>> parse_box("0:1,20:30,0:9")
    Box(start=(0, 20, 0), stop=(1, 30, 9), mip=0)
    """
    from storage.grid import Box

    if text is None:
        return None
    match = _BOX.fullmatch(text.replace(" ", ""))
    if match is None:
        raise ConfigError(f"--box {text!r}: expected z0:z1,y0:y1,x0:x1, px of the array")
    z0, z1, y0, y1, x0, x1 = (int(part) for part in match.groups())
    return Box((z0, y0, x0), (z1, y1, x1), mip=0)


def keys_of_box(uri: str, array: str | None, box: Box | None) -> list[str]:
    """Return the keys below `uri` that a program needs to open an array and read a box of it."""
    from storage.cache.needs import Needs
    from storage.store import exists, join
    from storage.volume import open_foreign

    if array is None or box is None:
        raise ConfigError("--array and --box belong together: a box of which array?")
    opened = open_foreign(uri, array)
    folders = ["", *_above(array), array]
    names = [f"{folder}/{name}".lstrip("/") for folder in folders for name in _METADATA]
    metadata = [name for name in names if exists(join(uri, name))]
    return metadata + [f"{array}/{key}" for key, _ in Needs.of(opened).objects(box)]


_METADATA = ("zarr.json", ".zgroup", ".zarray", ".zattrs")


def _above(path: str) -> list[str]:
    """Return the folders above a path.

    >>> _above("runs/4f2a/aligned/0")
    ['runs', 'runs/4f2a', 'runs/4f2a/aligned']
    """
    parts = path.split("/")
    return ["/".join(parts[:n]) for n in range(1, len(parts))]


def _tell(objects: int, copied_bytes: int) -> None:
    if err.is_terminal and objects % 10 == 0:
        err.print(f"{objects} objects, {copied_bytes / 1e6:.0f} MB copied", end="\r")
