"""Which images are new in a folder, where each belongs in a volume, and what is wrong with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NamedTuple

from alignment.errors import DataError
from storage.errors import SourceError
from storage.growing import Listing, default_names, read_listing
from storage.sections import open_source
from storage.sources.files import IMAGE_SUFFIXES, FileIdentity, list_files
from storage.sources.folder import FolderSource, image_size, natural_key
from storage.store import exists, join

BAND_ROWS = 2048
_HEADERS_AT_ONCE = 16


class Arrival(NamedTuple):
    """An image that is a new section, or a new image of a section."""

    z: int
    name: str
    file: str
    fingerprint: str
    is_new: bool

    @property
    def label(self) -> str:
        """Return the section's place, sorted as z."""
        return f"z{self.z:06d}"


@dataclass(frozen=True)
class Delivery:
    """What is to be done with a folder of images."""

    incoming: str
    shape: tuple[int, int]
    """(ny, nx) of the volume's sections."""
    listing: Listing
    """Of the volume as it is."""
    arrivals: tuple[Arrival, ...]
    unchanged: int
    """Images that were brought in before."""
    faults: tuple[str, ...]
    """Everything that is wrong with it, one thing a line; empty if nothing is."""
    creates: bool
    """Whether the volume does not exist yet."""

    @property
    def sections(self) -> int:
        """How many sections the volume has afterwards."""
        return max([len(self.listing.names), *(a.z + 1 for a in self.arrivals)])


def image_of(arrival: Arrival, incoming: str, shape: tuple[int, int]) -> FolderSource:
    """Return an arrival as a source with one section, filled up to `shape` (ny, nx)."""
    return FolderSource(incoming, (1, *shape), None, (arrival.name,), (arrival.file,))


def look_at(incoming: str, volume: str, *, pad: bool = False) -> Delivery:
    """Compare a folder with a volume, reading headers only.

    An image belongs to the section of its name without the suffix: the section is replaced if there
    is one, else it is added at the end, in natural order. Images that made a section before and did
    not change are passed over.

    Parameters
    ----------
    pad : bool
        Let images be smaller than the volume's sections: they are filled up with no data.

    Raises
    ------
    DataError
        If there is no image at all.
    """
    files = {f.name: f for f in list_files(incoming) if _is_image(f)}
    if not files:
        raise DataError(
            f"{incoming} holds no images: expected files ending in {', '.join(IMAGE_SUFFIXES)}"
        )
    creates = not exists(join(volume, "zarr.json"))
    listing, shape = _present(volume) if not creates else (Listing((), ()), None)
    came = dict(zip(listing.names, listing.images, strict=True))
    ordered = sorted(files, key=natural_key)
    fresh = [n for n in ordered if came.get(_stem(n)) != files[n].fingerprint]
    with ThreadPoolExecutor(_HEADERS_AT_ONCE) as threads:
        uris = [join(incoming, name) for name in fresh]
        sizes = dict(zip(fresh, threads.map(image_size, uris), strict=True))
    shape = shape or _commonest(sizes.values(), largest=pad)
    faults = [
        *_same_names(ordered),
        *(f"{n}: {size}" for n, size in sizes.items() if isinstance(size, SourceError)),
        *_wrong_sizes(sizes, shape, pad=pad),
        *_out_of_order(fresh, listing.names),
    ]
    return Delivery(
        incoming,
        shape,
        listing,
        tuple(_placed(fresh, files, listing.names)),
        len(files) - len(fresh),
        tuple(faults),
        creates,
    )


def check_pixels(arrival: Arrival, *, incoming: str, shape: tuple[int, int]) -> str:
    """Read all of an image; return what is wrong with it, or nothing."""
    source = image_of(arrival, incoming, shape)
    try:
        for y in range(0, shape[0], BAND_ROWS):
            source.read_rows(0, y, min(y + BAND_ROWS, shape[0]))
    except SourceError as error:
        return f"{arrival.file}: {error}"
    return ""


def _present(volume: str) -> tuple[Listing, tuple[int, int]]:
    """Return the names of a volume's sections, and their size."""
    nz, ny, nx = open_source(volume).shape
    listing = read_listing(volume)
    if listing is None:
        listing = Listing(default_names(nz), ("",) * nz)
    return listing, (ny, nx)


def _placed(
    fresh: list[str], files: dict[str, FileIdentity], names: tuple[str, ...]
) -> Iterable[Arrival]:
    places = {name: z for z, name in enumerate(names)}
    end = len(names)
    for file in fresh:
        stem = _stem(file)
        is_new = stem not in places
        z = end if is_new else places[stem]
        end += is_new
        yield Arrival(z, stem, file, files[file].fingerprint, is_new)


def _commonest(sizes: Iterable[tuple[int, int] | SourceError], *, largest: bool) -> tuple[int, int]:
    known = [size for size in sizes if not isinstance(size, SourceError)]
    if not known:
        return (0, 0)  # every image has a fault of its own
    if largest:
        return max(y for y, _ in known), max(x for _, x in known)
    return Counter(known).most_common(1)[0][0]


def _same_names(files: list[str]) -> Iterable[str]:
    for stem, count in Counter(map(_stem, files)).items():
        if count > 1:
            same = ", ".join(n for n in files if _stem(n) == stem)
            yield f"{same}: {count} files for one section; keep one"


def _wrong_sizes(
    sizes: dict[str, tuple[int, int] | SourceError], shape: tuple[int, int], *, pad: bool
) -> Iterable[str]:
    for name, size in sizes.items():
        if isinstance(size, SourceError) or size == shape:
            continue
        is_smaller = size[0] <= shape[0] and size[1] <= shape[1]
        if not (pad and is_smaller):
            hint = "; set pad to fill smaller ones up" if is_smaller else ""
            yield f"{name}: {size[0]} x {size[1]} px (y, x), expected {shape[0]} x {shape[1]}{hint}"


def _out_of_order(fresh: list[str], names: tuple[str, ...]) -> Iterable[str]:
    """Yield the new images that would have to lie before a section which is there."""
    if not names:
        return
    last = max(names, key=natural_key)
    for file in fresh:
        stem = _stem(file)
        if stem not in names and natural_key(stem) < natural_key(last):
            yield (
                f"{file}: new, but comes before section {last!r} in order. Sections are added at "
                "the end or replaced; rename the file, or bring everything into a new volume"
            )


def _is_image(file: FileIdentity) -> bool:
    return file.name.lower().endswith(IMAGE_SUFFIXES) and not file.name.startswith(".")


def _stem(name: str) -> str:
    return PurePosixPath(name).stem
