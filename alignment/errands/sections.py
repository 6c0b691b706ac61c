"""Bring section images from a folder into a source volume, all of them or none."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from alignment.blockwise import Client, run_blocks
from alignment.config import parse_config
from alignment.errands.arrivals import Arrival, Delivery, check_pixels, image_of, look_at
from alignment.errands.drive import Finding
from alignment.errands.progress import Progress
from alignment.errors import DataError
from alignment.runs import DEFAULT_RESOLUTION_NM, pyramid_levels
from alignment.stages.levels import write_section
from storage.growing import Listing, grow, levels_to_write, read_listing, write_listing
from storage.store import normalise_uri
from storage.volume import create_image

log = logging.getLogger(__name__)

SHOWN = 5
"""Faults that the message names; the result names all."""


def ingest(arguments: Mapping[str, Any], client: Client, progress: Progress) -> dict[str, Any]:
    """Bring new and changed images into a volume; return which sections were added and replaced.

    Every image is read before anything is written. A repetition goes on where another was killed.

    Parameters
    ----------
    arguments : mapping
        ``incoming``, ``volume``; ``pad`` (see `look_at`), ``resolution_nm`` of a new volume.

    Raises
    ------
    Finding
        If something is wrong with an image; nothing has been written then.
    """
    incoming, volume = (normalise_uri(arguments[name]) for name in ("incoming", "volume"))
    if f"{incoming}/".startswith(f"{volume}/") or f"{volume}/".startswith(f"{incoming}/"):
        raise DataError(f"{incoming} and {volume} lie in each other; use two separate folders")
    delivery = look_at(incoming, volume, pad=bool(arguments.get("pad")))
    faults = delivery.faults or _damaged(delivery, client, progress)
    if faults:
        raise Finding(_words(incoming, faults), {"faults": list(faults)})
    if delivery.creates:
        _create(volume, delivery, arguments.get("resolution_nm"))
        delivery = look_at(incoming, volume, pad=bool(arguments.get("pad")))
    _write_all(volume, delivery, client, progress)
    images = dict(zip(delivery.listing.names, delivery.listing.images, strict=True))
    images |= {arrival.name: arrival.fingerprint for arrival in delivery.arrivals}
    if delivery.arrivals:
        write_listing(volume, Listing(tuple(images), tuple(images.values()), delivery.listing.etag))
    grow(volume, len(images))
    return {
        "new": [arrival.name for arrival in delivery.arrivals if arrival.is_new],
        "replaced": [arrival.name for arrival in delivery.arrivals if not arrival.is_new],
        "unchanged": delivery.unchanged,
        "sections": len(images),
    }


def write_arrival(
    arrival: Arrival, *, incoming: str, shape: tuple[int, int], volume: str, sections: int
) -> None:
    """Write one section at every level; nobody sees a new one before the volume has grown."""
    source = image_of(arrival, incoming, shape)
    write_section(
        levels_to_write(volume, sections), arrival.z, lambda a, b: source.read_rows(0, a, b)
    )


def _damaged(delivery: Delivery, client: Client, progress: Progress) -> tuple[str, ...]:
    check = partial(check_pixels, incoming=delivery.incoming, shape=delivery.shape)
    return tuple(sorted(filter(None, _each(check, delivery, client, progress, "reading"))))


def _write_all(volume: str, delivery: Delivery, client: Client, progress: Progress) -> None:
    write = partial(
        write_arrival,
        incoming=delivery.incoming,
        shape=delivery.shape,
        volume=volume,
        sections=delivery.sections,
    )
    _each(write, delivery, client, progress, "writing")


def _each[T](
    work: Callable[[Arrival], T],
    delivery: Delivery,
    client: Client,
    progress: Progress,
    phase: str,
) -> list[T | None]:
    """Return what `work` answers for each arrival; the first error ends it."""
    total, answers = len(delivery.arrivals), []
    progress.tell(0, total, phase)
    for outcome in run_blocks(work, delivery.arrivals, client):
        if outcome.error is not None:
            raise outcome.error
        answers.append(outcome.value)
        progress.tell(len(answers), total, phase)
    return answers


def _create(volume: str, delivery: Delivery, resolution_nm: Any) -> None:
    """Make a volume with room for one section, which has no name yet."""
    layout = parse_config({"volume": {"resolution_nm": resolution_nm}}).volume
    shape = (1, *delivery.shape)
    if read_listing(volume) is None:
        write_listing(volume, Listing((), ()))
    create_image(
        volume,
        shape=shape,
        chunk=(1, layout.section_chunk_px, layout.section_chunk_px),
        shard=(1, layout.section_shard_px, layout.section_shard_px),
        resolution_nm=layout.resolution_nm or DEFAULT_RESOLUTION_NM,
        mips=pyramid_levels(shape),
        name=volume.rpartition("/")[2],
    )


def _words(incoming: str, faults: tuple[str, ...]) -> str:
    more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
    shown = "; ".join(faults[:SHOWN])
    return f"{incoming}: {len(faults)} faults, nothing was written: {shown}{more}"
