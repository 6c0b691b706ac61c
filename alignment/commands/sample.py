"""A phantom of neuropil as a volume, with the truth beside it."""

from __future__ import annotations

from alignment.commands.convert import Tell, as_rows, write_volume
from alignment.phantom import Phantom, PhantomConfig
from alignment.runs import DEFAULT_RESOLUTION_NM
from alignment.stages.knowntruth import write_truth
from storage.store import normalise_uri


def write_phantom(target: str, config: PhantomConfig, *, tell: Tell | None = None) -> None:
    """Write a phantom of neuropil to `target`, and in its ``truth/`` where the tissue is."""
    phantom = Phantom(config)
    shape = (config.sections, config.height, config.width)
    images = (as_rows(phantom.section(z)) for z in range(config.sections))
    write_volume(target, shape, DEFAULT_RESOLUTION_NM, images, tell)
    write_truth(normalise_uri(target), phantom.truth())
