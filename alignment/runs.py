"""A run: one frozen configuration over one version of a source, all of it below one URI."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from alignment.attachments import ATTACHED, attached
from alignment.config import PipelineConfig, parse_config
from alignment.errors import DataError
from alignment.updates import Base, base_of, is_same_work
from storage.commit.keys import run_key
from storage.errors import ConflictError, CorruptError
from storage.grid import ZYX
from storage.ledger import StageState, read_state, touch, write_state
from storage.provenance import module_code, provenance
from storage.publish import condemned, read_pointer
from storage.sections import open_source
from storage.store import create_json, join, normalise_uri, read_json

DERIVED = ("key", "volume_uri")
"""What run.json says beside what the key is made of; a run believes its place instead."""

DEFAULT_RESOLUTION_NM = (40.0, 4.0, 4.0)
LARGEST_TOP_PX = 512
"""Pyramids end at the first level whose longer side is not above this."""


@dataclass(frozen=True)
class Run:
    """What every stage knows; read from ``run.json``, which never changes."""

    uri: str
    volume_uri: str
    key: str
    source_uri: str
    shape: ZYX
    """(z, y, x) of the largest source section, px at mip 0."""
    resolution_nm: tuple[float, float, float]
    section_names: tuple[str, ...]
    config: PipelineConfig
    provenance: Mapping[str, Any]
    attachments: Mapping[str, Any] = field(default_factory=dict)
    """What was frozen by `alignment.attachments`."""
    base: Base | None = None
    """The run that this one updates, and what it keeps of it; None for one from scratch."""
    slab: range | None = None
    """The only sections whose units are asked for; None asks for those of all."""

    @property
    def base_uri(self) -> str:
        """The URI of the run that this one updates."""
        return join(self.volume_uri, "runs", self.base.run) if self.base else ""

    def owns(self, z: int) -> bool:
        """Return whether the units of section z are asked for."""
        return self.slab is None or z in self.slab

    @property
    def section_mips(self) -> int:
        """Levels of the sections' pyramid: as many as the stages or a viewer need."""
        config = self.config
        needed = max(config.masks.mip, config.coarse.mip, *config.match.mips)
        return max(needed + 1, pyramid_levels(self.shape))

    @property
    def section_yx(self) -> tuple[int, int]:
        """Height and width of the largest source section, px at mip 0."""
        return self.shape[1], self.shape[2]

    def shape_at(self, mip: int) -> ZYX:
        """Return the shape of the sections at `mip`."""
        nz, ny, nx = self.shape
        return nz, -(-ny // 2**mip), -(-nx // 2**mip)


def pyramid_levels(shape: ZYX) -> int:
    """Return how many levels bring the longer side of (z, y, x) down to the overview's size.

    >>> pyramid_levels((30, 1024, 900)), pyramid_levels((30, 300, 200))
    (2, 1)
    """
    levels, side = 1, max(shape[1:])
    while side > LARGEST_TOP_PX:
        side = -(-side // 2)
        levels += 1
    return levels


def prepare(
    source: str, volume: str, config: Mapping[str, Any] | None = None, *, update: bool = False
) -> str:
    """Freeze a run below `volume` and return its URI; the same inputs give the same run.

    Parameters
    ----------
    source, volume : str
        URIs or paths: the unaligned sections, and where the aligned volume shall be.
    config : mapping, optional
        Plain nested settings; missing ones take their defaults.
    update : bool
        Keep what is published of sections far from any change (`alignment.updates`). If nothing
        changed at all, the published run itself is returned; if nothing is published, or nothing
        can be kept, the run is one from scratch.

    Raises
    ------
    ConfigError
        If a setting is unknown or out of range; nothing has been written then.
    SourceError, UriError
        If the source cannot be understood; nothing has been written then.
    ConflictError
        If this very run is being deleted.
    """
    volume_uri = normalise_uri(volume)
    frozen = define(source, config)
    pointer = read_pointer(volume_uri)
    if update and pointer:
        before = definition(join(volume_uri, "runs", pointer.run))
        if is_same_work(before, frozen):
            return join(volume_uri, "runs", pointer.run)
        base = base_of(pointer.run, before, frozen)
        if base.places:
            frozen["base"] = base.as_dict()
    key = run_key(frozen)
    run_uri = join(volume_uri, "runs", key)
    touch(run_uri)
    check_kept(volume_uri, key)
    create_json(join(run_uri, "run.json"), {"key": key, "volume_uri": volume_uri, **frozen})
    if pointer and pointer.run != key and read_state(run_uri, "publish").status == "done":
        # It was published and another run since: whoever asks for it again wants it back.
        write_state(run_uri, StageState("publish"))
    return run_uri


def define(source: str, config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return what a run from scratch freezes, as in its run.json; writes nothing.

    Raises
    ------
    ConfigError, SourceError, UriError, DataError
        As `prepare`.
    """
    settings = parse_config(dict(config or {}))
    source_uri = normalise_uri(source)
    opened = open_source(source_uri)
    if opened.shape[0] < 2:
        raise DataError(
            f"{source_uri} holds {opened.shape[0]} section; aligning needs at least 2. "
            "Give a multi-page TIFF, a folder of images, or a zarr volume with z first."
        )
    resolution = settings.volume.resolution_nm or opened.resolution_nm or DEFAULT_RESOLUTION_NM
    return {
        **attached(settings, opened.shape),
        "source_uri": source_uri,
        "source": opened.describe(),
        "shape": list(opened.shape),
        "resolution_nm": list(resolution),
        "section_names": list(opened.names),
        "config": settings.model_dump(mode="json"),
        "stages": stage_code(),
        "provenance": provenance(),
    }


def stage_code() -> dict[str, str]:
    """Return a digest of the code of every stage, by name."""
    from alignment.stages.order import ORDER  # the stages import this module

    return {stage: module_code(f"alignment.stages.{stage}") for stage in ORDER}


def definition(run_uri: str) -> dict[str, Any]:
    """Return what a run froze, checked against its key.

    Raises
    ------
    MissingError
        If there is no run at `run_uri`.
    CorruptError
        If it is not what the run was made with.
    """
    frozen = read_json(join(run_uri, "run.json"))
    described = {name: value for name, value in frozen.items() if name not in DERIVED}
    if run_key(described) != run_uri.rpartition("/runs/")[2]:
        raise CorruptError(
            f"{run_uri}/run.json is not the definition of run {run_uri.rpartition('/')[2]}: it was "
            "changed. Restore it, or run the same source with the same configuration again"
        )
    return described


def check_kept(volume_uri: str, key: str) -> None:
    """Refuse to work on a run that is being deleted.

    Raises
    ------
    ConflictError
        If `storage.gc` has condemned it.
    """
    if key in condemned(volume_uri):
        raise ConflictError(
            f"run {key} of {volume_uri} is being deleted (petalign gc). Let that finish, then "
            "start the run again: it begins anew"
        )


@lru_cache(maxsize=8)
def load(run_uri: str) -> Run:
    """Read a run; cached, because ``run.json`` is immutable.

    Raises
    ------
    MissingError
        If there is no run at `run_uri`.
    """
    frozen = definition(run_uri)
    volume_uri, _, key = run_uri.rpartition("/runs/")
    z, y, x = frozen["resolution_nm"]
    return Run(
        uri=run_uri,
        volume_uri=volume_uri,
        key=key,
        source_uri=frozen["source_uri"],
        shape=tuple(frozen["shape"]),
        resolution_nm=(z, y, x),
        section_names=tuple(frozen["section_names"]),
        config=parse_config(frozen["config"]),
        provenance=frozen["provenance"],
        attachments={name: frozen[name] for name in ATTACHED if name in frozen},
        base=Base.of(frozen["base"]) if "base" in frozen else None,
    )
