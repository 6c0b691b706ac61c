"""Source volumes that grow: sections are added at the end, and re-imaged ones replaced.

::

    <uri>/zarr.json        OME-Zarr 0.5, never changed
    <uri>/0/, 1/ ...       each section in objects of its own; only the finest level is aligned
    <uri>/sections.json    the sections' names, and which image each came from

New sections are written beyond the arrays' end, where nobody reads, and seen when the arrays grow:
by one swap of ``0/zarr.json``, all at once. The objects of a replaced section are exchanged one by
one. Who reads it meanwhile may see some of both; its fingerprint is then neither the old one nor
the new one, so an alignment that was made of the mixture is found out of date afterwards.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from storage import store
from storage.arrays import Array, open_growing, read_metadata, write_unit
from storage.errors import ConflictError, CorruptError, MismatchError, MissingError
from storage.limits import MAX_AXIS

NAMES = "sections.json"
MAX_NAME = 200
MAX_BYTES = 32 * 2**20
_ATTEMPTS = 20


@dataclass(frozen=True)
class Listing:
    """What sections.json says; the tag is for `write_listing`."""

    names: tuple[str, ...]
    images: tuple[str, ...]
    """Fingerprint of the image that each section was made of; empty where that is not known."""
    etag: str | None = None


def read_listing(uri: str) -> Listing | None:
    """Return names and images of a volume's sections, None if it says nothing of them.

    Raises
    ------
    CorruptError
        If the object does not hold names.
    """
    where = store.join(uri, NAMES)
    try:
        if store.size(where) > MAX_BYTES:
            raise CorruptError(f"{where} is larger than {MAX_BYTES} bytes; no list of names is")
    except MissingError:
        return None
    value, etag = store.read_json_tagged(where)
    try:
        names, images = tuple(value["names"]), tuple(value["images"])
    except (KeyError, TypeError) as error:
        raise CorruptError(f"{where} does not hold the names of sections: {error}") from None
    texts = [*names, *images]
    if len(names) != len(images) or len(names) > MAX_AXIS or not all(map(_is_name, texts)):
        raise CorruptError(f"{where} does not hold one printable name and image for each section")
    return Listing(names, images, etag)


def write_listing(uri: str, listing: Listing) -> None:
    """Write names and images, unless somebody else did since `listing.etag`.

    Raises
    ------
    ConflictError
        If the object is not the one that was read.
    """
    value = {k: v for k, v in asdict(listing).items() if k != "etag"}
    store.compare_and_swap_json(store.join(uri, NAMES), value, listing.etag)


def default_names(sections: int) -> tuple[str, ...]:
    """Return the names of sections that were given none.

    >>> default_names(2)
    ('z000000', 'z000001')
    """
    return tuple(f"z{z:06d}" for z in range(sections))


def levels_to_write(uri: str, sections: int) -> list[Array]:
    """Return the levels of a volume, finest first, to write any of `sections` sections into.

    Raises
    ------
    MismatchError
        If the volume cannot grow: its objects hold more than one section each.
    """
    arrays = [open_growing(uri, str(mip), sections) for mip in range(_levels(uri))]
    for array in arrays:
        if array.ndim != 3 or write_unit(array)[0] != 1:
            raise MismatchError(
                f"{uri} keeps {write_unit(array)[0]} sections in one object, so none can be "
                "replaced alone; copy it with `petalign ingest` into a volume that can grow"
            )
    return arrays


def grow(uri: str, sections: int) -> None:
    """Let readers see `sections` sections; a volume that has them, or more, stays as it is.

    The finest level is the last: it is the one that is aligned.
    """
    for mip in reversed(range(_levels(uri))):
        where = store.join(uri, str(mip), "zarr.json")
        for _ in range(_ATTEMPTS):
            document, etag = store.read_json_tagged(where)
            if document["shape"][0] >= sections:
                break
            document["shape"][0] = sections
            try:
                store.compare_and_swap_json(where, document, etag)
            except ConflictError:
                continue
            break
        else:
            raise ConflictError(f"{where} changed {_ATTEMPTS} times while it was being written")


def _levels(uri: str) -> int:
    document = read_metadata(uri, "zarr.json")
    try:
        datasets = document["attributes"]["ome"]["multiscales"][0]["datasets"]
        paths = [str(dataset["path"]) for dataset in datasets]
    except (KeyError, IndexError, TypeError):
        paths = []
    if not paths or paths != [str(mip) for mip in range(len(paths))]:
        raise MismatchError(
            f"{uri} is not an OME-Zarr pyramid as `petalign ingest` writes it; copy it with that"
        )
    return len(paths)


def _is_name(text: object) -> bool:
    return isinstance(text, str) and len(text) <= MAX_NAME and (text == "" or text.isprintable())
