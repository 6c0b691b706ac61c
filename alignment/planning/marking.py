"""What a network costs that marks defects, `masks.network`: its operations, and its memory."""

from __future__ import annotations

from typing import NamedTuple

from alignment.attachments import defect_network
from alignment.config import PipelineConfig
from alignment.errors import ConfigError, DataError
from alignment.runs import Run
from alignment.stages.marked import MARGIN, patch_grid
from inference.backends.files import on_engine
from inference.errors import BackendError, ModelError
from inference.network import ZYX
from storage.errors import StorageError
from storage.store import normalise_uri, read_bytes


class Marking(NamedTuple):
    """The network's work on one section."""

    gflop: float
    """1e9 operations of all its patches, margins included."""
    working_bytes: int
    """Memory of the engine, and of the section as it goes in and comes out."""


def marking_to_be(config: PipelineConfig, shape: tuple[int, ...]) -> Marking | None:
    """Return what marking a section costs in a run that is planned; None if nothing is marked.

    Parameters
    ----------
    shape : tuple of int
        (z, y, x) of the stack at `masks.mip`.

    Raises
    ------
    ConfigError
        If the engine cannot run the network over single sections.
    MissingError, UriError
        If the network cannot be read.
    """
    uri = config.masks.network
    if not uri:
        return None
    try:
        return _cost(read_bytes(normalise_uri(uri)), shape)
    except (BackendError, ModelError) as error:
        raise ConfigError(f"masks.network: {uri}: {error}") from None


def marking_of(run: Run) -> Marking | None:
    """Return what marking a section of a run costs; None without a network, or if it is gone."""
    sha256 = run.attachments.get("defects")
    if sha256 is None:
        return None
    try:
        content = defect_network(run.config.masks.network, sha256)
        return _cost(content, run.shape_at(run.config.masks.mip))
    except (DataError, StorageError, OSError, BackendError, ModelError):
        return None


def _cost(content: bytes, shape: tuple[int, ...]) -> Marking:
    network = on_engine(content, shrink=MARGIN)
    section: ZYX = (1, shape[1], shape[2])
    grid = patch_grid(network, section)
    z, y, x = grid.patch
    gflop = grid.count((0, 0, 0), section) * network.gflop((z, y, x))
    seen_and_found = (1 + 4 * network.channels) * shape[1] * shape[2]
    return Marking(gflop, network.working_bytes((z, y, x)) + seen_and_found)
