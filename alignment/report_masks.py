"""What the report tells of masks: a table of reasons, tinted pictures, and duplicated sections.

Every masked pixel has a reason with a name; here a reader sees which, how much of the section it
takes, and where, and can judge by eye whether tissue was taken for a defect.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from alignment import figures
from alignment.defects import Defect

SHOWN_MASKS = 24
"""Sections that are drawn with their masks; `shown_masks` chooses them."""
PICTURE_PX = 320
"""Longest side of such a picture."""
LEAST_AREA = 0.0005
"""Share of a section below which a reason is not worth a column or a picture."""

TINTS: dict[Defect, tuple[int, int, int]] = {
    Defect.FOLD: (213, 94, 0),
    Defect.CRACK: (86, 180, 233),
    Defect.SEAM: (240, 228, 66),
    Defect.UNDEREXPOSED: (204, 121, 167),
    Defect.SATURATED: (230, 159, 0),
    Defect.FLAT: (0, 158, 115),
    Defect.NO_DATA: (0, 114, 178),
    Defect.OUTSIDE: (110, 118, 126),
}
"""RGB after Okabe and Ito, which every common kind of colour blindness tells apart; the first
reason of a pixel in this order gives its colour."""
_SHARE = 0.55  # of the tint; the rest is the section, so that the eye can check the reason


@dataclass(frozen=True)
class MaskPicture:
    """One section with its masks, small."""

    z: int
    image: NDArray[np.uint8]
    """(ny, nx), 0 = no data."""
    reasons: NDArray[np.uint8]
    """(my, mx) `Defect` flags over the same extent; any finer or coarser."""


@dataclass(frozen=True)
class DuplicatePair:
    """Two sections that show the same."""

    z: int
    fixed_z: int
    kind: Literal["exposure", "tissue"]
    structure: float
    """Correlation of structures of 2 to 8 px."""
    grain: float
    """Correlation of what is finer."""
    name: str
    fixed_name: str
    """Of the two sections."""

    @property
    def sentence(self) -> str:
        """Return what is wrong with the pair, with both names."""
        what = "the same exposure" if self.kind == "exposure" else "the same tissue"
        return (
            f"sections {self.fixed_z} ({self.fixed_name}) and {self.z} ({self.name}) show {what} "
            f"(structure r {self.structure:.2f}, grain r {self.grain:.2f})"
        )


def shown_masks(areas: Mapping[int, Mapping[str, float]], limit: int = SHOWN_MASKS) -> list[int]:
    """Choose the sections whose masks are drawn, the worst first.

    What lies outside the section counts a hundredth: it is nobody's fault.

    >>> shown_masks({0: {"FOLD": 0.1}, 1: {"OUTSIDE": 0.5}, 2: {"SEAM": 0.2}, 3: {}})
    [2, 0, 1]
    """
    weights = {
        z: sum(area / (100 if name == "OUTSIDE" else 1) for name, area in shares.items())
        for z, shares in areas.items()
        if max(shares.values(), default=0.0) >= LEAST_AREA
    }
    return sorted(weights, key=lambda z: (-weights[z], z))[:limit]


class MaskColumn(NamedTuple):
    """One reason that occurs in the run."""

    defect: Defect
    label: str
    colour: str


def columns(areas: Sequence[Mapping[str, float]]) -> list[MaskColumn]:
    """Return the reasons that occur anywhere, in the order of `TINTS`."""
    return [
        MaskColumn(defect, label_of(defect.name or ""), "#{:02x}{:02x}{:02x}".format(*rgb))
        for defect, rgb in TINTS.items()
        if any(shares.get(defect.name or "", 0.0) >= LEAST_AREA for shares in areas)
    ]


def label_of(name: str) -> str:
    """Return a reason's name as words.

    >>> label_of("NO_DATA")
    'no data'
    """
    return name.lower().replace("_", " ")


class MaskCard(NamedTuple):
    """A picture with its caption."""

    z: int
    name: str
    picture: Markup
    reasons: str


def card(picture: MaskPicture, name: str, areas: Mapping[str, float]) -> MaskCard:
    """Draw one section, tinted by reason."""
    told = ", ".join(
        f"{label_of(reason)} {100 * area:.1f} %"
        for reason, area in sorted(areas.items(), key=lambda item: -item[1])
        if area >= LEAST_AREA
    )
    alt = f"Section {picture.z} with its masks: {told or 'none'}"
    shown = figures.photograph(tinted(picture.image, picture.reasons), alt)
    return MaskCard(picture.z, name, shown, told)


def tinted(
    image: NDArray[np.uint8], reasons: NDArray[np.uint8], largest_px: int = PICTURE_PX
) -> NDArray[np.uint8]:
    """Return a section (y, x) in grey, its masked pixels tinted by reason: RGB (y', x', 3).

    Both are brought to one size of at most `largest_px`; a reason of any pixel of a square is kept,
    so that seams do not vanish.
    """
    k = max(-(-max(image.shape) // largest_px), 1)
    ny, nx = (max(n // k, 1) for n in image.shape)
    squares = image[: ny * k, : nx * k].reshape(ny, min(k, image.shape[0]), nx, -1)
    grey = figures.stretch(squares.mean(axis=(1, 3)).round().astype(np.uint8))
    flags = _any_of(reasons, (ny, nx))
    shown = np.repeat(grey[..., None], 3, axis=-1).astype(np.float32)
    for defect, rgb in reversed(TINTS.items()):
        where = (flags & np.uint8(defect)) > 0
        shown[where] = (1 - _SHARE) * grey[where][:, None] + _SHARE * np.array(rgb, np.float32)
    return shown.round().astype(np.uint8)


def _any_of(reasons: NDArray[np.uint8], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Return flags at another size: all that occur in the part that a pixel stands for."""
    starts = [np.arange(n) * m // n for n, m in zip(shape, reasons.shape, strict=True)]
    # Where the target is finer, several of its pixels begin at one of the source.
    rows, columns_ = (np.unique(s, return_inverse=True) for s in starts)
    joined = np.bitwise_or.reduceat(reasons, rows[0], axis=0)
    joined = np.bitwise_or.reduceat(joined, columns_[0], axis=1)
    return np.asarray(joined[np.ix_(rows[1], columns_[1])], np.uint8)
