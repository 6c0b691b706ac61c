"""A phantom of neuropil as a volume, with the truth beside it."""

from __future__ import annotations

from alignment.commands.convert import Tell, write_volume
from alignment.phantom import Phantom, PhantomConfig
from alignment.runs import DEFAULT_RESOLUTION_NM
from alignment.stages.knowntruth import write_truth
from storage.store import normalise_uri


def write_phantom(
    target: str, *, sections: int, side: int, seed: int, tell: Tell | None = None
) -> None:
    """Write a phantom of neuropil to `target`, and in its ``truth/`` where the tissue is."""
    phantom = Phantom(PhantomConfig(sections=sections, height=side, width=side, seed=seed))
    shape = (sections, side, side)
    images = (phantom.section(z) for z in range(sections))
    write_volume(target, shape, DEFAULT_RESOLUTION_NM, images, tell)
    write_truth(normalise_uri(target), phantom.truth())
