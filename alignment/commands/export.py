"""Give a version of a volume away: precomputed, TIFF, displacement field, or a link."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from alignment.commands.exportfield import export_field
from alignment.errors import ConfigError
from alignment.viewer import data_url, read_layer, viewer_state
from storage.store import exists, join, normalise_uri
from storage.targets.blocks import Tell
from storage.targets.neuroglancer import VIEWER_URL, check_public_url, neuroglancer_link
from storage.targets.origin import Origin, find_origin
from storage.targets.precomputed import export_precomputed
from storage.targets.tiff import YX, export_tiff
from storage.uri import local_path

KINDS = ("precomputed", "tiff", "field", "link")


def export(
    volume: str | Path,
    to: str,
    dest: str | None = None,
    *,
    at: int | str | None = None,
    mips: tuple[int, ...] | None = None,
    z: str | None = None,
    box: str | None = None,
    base_url: str | None = None,
    viewer_url: str = VIEWER_URL,
    workers: int | None = None,
    tell: Tell | None = None,
) -> str:
    """Export one version of a volume; return a line that says what there is now.

    Parameters
    ----------
    volume : str or Path
        A volume (its published run), a run, or a single OME-Zarr image of this project.
    to : str
        One of `KINDS`.
    dest : str, optional
        Where to; for all kinds but "link".
    at : int or str, optional
        A version instead of the present one: its epoch, or the run's key.
    mips : tuple of int, optional
        Levels: any for "precomputed" (all by default), one for "tiff" (0 by default).
    z, box : str, optional
        Of "tiff": sections ``10:20``, and ``y0:y1,x0:x1`` in px of the mip.
    base_url, viewer_url : str, optional
        Of "link": where others find the volume's folder, and the viewer.

    Raises
    ------
    ConfigError
        If an option is missing, or one is given that the kind does not take.
    """
    _check_options(
        to, {"DEST": dest, "--mip": mips, "--z": z, "--box": box, "--base-url": base_url}
    )
    origin = find_origin(volume, at=at)
    if to == "link":
        return link(volume, origin, base_url=base_url, viewer_url=viewer_url)
    dest = dest or ""
    if to == "precomputed":
        workers = workers or min(os.cpu_count() or 1, 8)
        n = export_precomputed(origin, dest, mips=mips, workers=workers, tell=tell)
        return f"wrote {dest}: precomputed, {n} chunks, {_version(origin)}"
    if to == "field":
        names = export_field(origin, dest, tell=tell)
        return f"wrote {dest}: {', '.join(names)}, {_version(origin)}"
    if mips is not None and len(mips) != 1:
        raise ConfigError(f"--to tiff writes one mip, got {', '.join(map(str, mips))}")
    mip = mips[0] if mips else 0
    nz = origin.level(mip).array.shape[0]
    files = export_tiff(
        origin, dest, z=_span(z, "--z") if z else (0, nz), mip=mip, box=_box(box), tell=tell
    )
    return f"wrote {dest}: {len(files)} sections, {_version(origin)}"


def link(
    volume: str | Path,
    origin: Origin,
    *,
    base_url: str | None = None,
    viewer_url: str = VIEWER_URL,
    environment: Mapping[str, str] = os.environ,
) -> str:
    """Return a Neuroglancer URL that shows one version of a volume, beside its sections.

    The layers are those of the run, which never change; who opens the link later sees the same.

    Raises
    ------
    ConfigError
        If nobody but this machine can reach the volume.
    UriError
        If a URL holds credentials.
    """
    root = normalise_uri(volume)
    if base_url is None:
        if local_path(root) is not None:
            raise ConfigError(
                f"{root} is a folder of this machine; give --base-url, where others find it, or "
                "look at it here: petalign view"
            )
        base_url = data_url(root, environment=environment)
    url = check_public_url(base_url)
    below = origin.uri.removeprefix(root).strip("/")
    aligned = read_layer(root, url, below, name="aligned")
    sections = f"{below.rpartition('/')[0]}/sections".strip("/")
    unaligned = None
    if origin.run is not None and exists(join(root, sections, "zarr.json")):
        unaligned = read_layer(root, url, sections, name="unaligned")
    state = viewer_state(aligned, unaligned)
    state["title"] = f"petalign: {_version(origin)}"
    return neuroglancer_link(state, viewer_url)


def _version(origin: Origin) -> str:
    if origin.run is None:
        return "of no run"
    epoch = "" if origin.epoch is None else f", epoch {origin.epoch}"
    return f"run {origin.run}{epoch}"


def _check_options(to: str, given: Mapping[str, object]) -> None:
    takes = {
        "precomputed": {"DEST", "--mip"},
        "tiff": {"DEST", "--mip", "--z", "--box"},
        "field": {"DEST"},
        "link": {"--base-url"},
    }
    if to not in takes:
        raise ConfigError(f"--to {to!r}: expected one of {', '.join(KINDS)}")
    present = {name for name, value in given.items() if value is not None}
    if "DEST" in takes[to] - present:
        raise ConfigError(f"--to {to} needs DEST, where to write")
    if present - takes[to]:
        raise ConfigError(f"--to {to} does not take {', '.join(sorted(present - takes[to]))}")


def _span(text: str, name: str) -> tuple[int, int]:
    """Return a half-open range.

    >>> _span("10:20", "--z")
    (10, 20)
    """
    match = re.fullmatch(r"([0-9]{1,9}):([0-9]{1,9})", text.strip())
    if match is None:
        raise ConfigError(f"{name} {text!r}: expected START:STOP, for example 10:20 (without 20)")
    return int(match[1]), int(match[2])


def _box(text: str | None) -> YX | None:
    if text is None:
        return None
    spans = text.split(",")
    if len(spans) != 2:
        raise ConfigError(f"--box {text!r}: expected Y0:Y1,X0:X1")
    return _span(spans[0], "--box"), _span(spans[1], "--box")
