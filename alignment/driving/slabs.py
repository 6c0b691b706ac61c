"""Slabs: consecutive sections that one task of Airflow and one driver on Dask are for.

A volume of at most one slab is not cut: one driver does its stages whole. A stage that begins with
something about the whole stack (`alignment.stages.order.WHOLE`) is never cut.
"""

from __future__ import annotations

from typing import NamedTuple

from alignment.config import VolumeConfig
from alignment.errors import ConfigError
from storage.store import join, read_json

ALL = "all"
"""In place of a slab's name: the whole volume."""
MAX_SLABS = 1024
"""Airflow maps a task over no more (its default for ``core.max_map_length``)."""


class Slab(NamedTuple):
    """Sections [z0, z1)."""

    z0: int
    z1: int

    @property
    def label(self) -> str:
        """Return the first and the last section.

        >>> Slab(64, 128).label
        '64-127'
        """
        return f"{self.z0}-{self.z1 - 1}"

    @property
    def sections(self) -> range:
        """Return the sections."""
        return range(self.z0, self.z1)

    @classmethod
    def parse(cls, label: str) -> Slab:
        """Return the slab of a label.

        Raises
        ------
        ConfigError
            If it is none.

        >>> Slab.parse("64-127")
        Slab(z0=64, z1=128)
        """
        first, _, last = label.partition("-")
        if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last)):
            raise ConfigError(f"{label!r} names no slab; expected sections such as '64-127'")
        return cls(int(first), int(last) + 1)


def slabs_of(sections: int, depth: int) -> list[Slab]:
    """Cut a stack into slabs of `depth` sections; the last may be thinner.

    >>> [slab.label for slab in slabs_of(150, 64)]
    ['0-63', '64-127', '128-149']
    """
    return [Slab(z, min(z + depth, sections)) for z in range(0, sections, depth)]


def state_name(stage: str, label: str) -> str:
    """Return under which name the ledger holds the state of a slab of a stage.

    >>> state_name("match", "64-127"), state_name("match", ALL)
    ('match.z000064', 'match')
    """
    return stage if label == ALL else f"{stage}.z{Slab.parse(label).z0:06d}"


def labels_of(run_uri: str) -> list[str]:
    """Return the slabs of a run, or `ALL` for one of at most one slab; reads ``run.json`` alone.

    Raises
    ------
    ConfigError
        If there are more than Airflow maps.
    """
    frozen = read_json(join(run_uri, "run.json"))
    sections, volume = frozen["shape"][0], VolumeConfig(**frozen["config"]["volume"])
    slabs = slabs_of(sections, volume.slab_depth)
    if len(slabs) > MAX_SLABS:
        raise ConfigError(
            f"{sections:,} sections in slabs of {volume.slab_depth} are {len(slabs):,} tasks a "
            f"stage, and Airflow maps at most {MAX_SLABS:,}; raise volume.slab_sections to "
            f"{-(-sections // MAX_SLABS)} or more"
        )
    return [slab.label for slab in slabs] if len(slabs) > 1 else [ALL]
