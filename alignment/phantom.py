"""A stack of made-up neuropil, out of register by a known amount: what `petalign sample` writes.

The structure is made by `neuropil`, its look by `micrograph`, the misalignment by `misalignment`.
Every section can be drawn on its own.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from alignment.errors import DataError
from alignment.micrograph import Micrograph
from alignment.misalignment import DEFECTS, Misalignment, MisalignmentConfig, SectionIndex
from alignment.neuropil import Box, Neuropil
from alignment.truth import Truth


class PhantomConfig(MisalignmentConfig):
    """Size of the phantom, its misalignment and its defects.

    A defect whose default section lies beyond the last one is left out.
    """

    sections: Annotated[int, Field(ge=1, le=100_000)] = 24
    """Number of sections."""
    height: Annotated[int, Field(ge=64, le=32_000)] = 1024
    """Of every section, px."""
    width: Annotated[int, Field(ge=64, le=32_000)] = 1024
    """Of every section, px."""
    noise: Annotated[float, Field(ge=0.0, le=100.0)] = 8.0
    """Standard deviation of the detector's noise at mid grey, grey values."""
    fold_section: SectionIndex | None = 6
    """A section with a fold: a dark band, under which a strip of tissue is hidden."""
    blank_section: SectionIndex | None = 11
    """A section that was lost: all 0."""
    corner_section: SectionIndex | None = 19
    """A section that does not fill its image: one corner is 0."""

    @model_validator(mode="before")
    @classmethod
    def _short_stacks_have_fewer_defects(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        sections = values.get("sections", cls.model_fields["sections"].default)
        absent = {
            name: None
            for name in DEFECTS
            if isinstance(sections, int) and (cls.model_fields[name].default or 0) >= sections
        }
        return absent | values


class Phantom:
    """A stack of sections, and where the tissue in them comes from.

    Parameters
    ----------
    config : PhantomConfig

    Raises
    ------
    DataError
        If a defect is asked for in a section that the stack does not have.
    """

    def __init__(self, config: PhantomConfig) -> None:
        self.config = config
        self._misalignment = Misalignment(config, (config.sections, config.height, config.width))
        boxes = [self._misalignment.extent(z) for z in range(config.sections)]
        boxes.append((0, 0, config.height, config.width))
        (y0, x0), (y1, x1) = np.min(boxes, axis=0)[:2], np.max(boxes, axis=0)[2:]
        extent = (int(y0), int(x0), int(y1), int(x1))
        self._micrograph = Micrograph(Neuropil(extent, config.seed))

    def section(self, z: int) -> NDArray[np.uint8]:
        """Return section z, uint8 (height, width): misaligned, damaged, 0 where there is no data.

        The first section drawn takes longer, the more the higher it lies: the tissue is kept in
        register from the first section upwards.
        """
        self._check(z)
        if z == self.config.blank_section:
            return np.zeros((self.config.height, self.config.width), np.uint8)
        y0, x0, y1, x1 = self._misalignment.extent(z)
        # The cubic spline looks a little beyond what is shown.
        tissue = self._micrograph.render(z, (y0 - 8, x0 - 8, y1 + 8, x1 + 8))
        shown = self._misalignment.warp(z, tissue, origin_yx=(y0 - 8, x0 - 8))
        return self._misalignment.expose(z, shown)

    def tissue(self, z: int, box: Box | None = None) -> NDArray[np.float32]:
        """Return what perfect alignment of section z would show, without noise or defects.

        Parameters
        ----------
        z : int
        box : (y0, x0, y1, x1), optional
            Part of the tissue, px; by default (0, 0, height, width).

        Returns
        -------
        float32 ndarray of shape (y1 - y0, x1 - x0)
            Grey values 0..255.
        """
        self._check(z)
        return self._micrograph.render(z, box or (0, 0, self.config.height, self.config.width))

    def truth(self, step_px: int = 8) -> Truth:
        """Return which tissue every section shows, at nodes `step_px` apart."""
        return self._misalignment.truth(step_px)

    def _check(self, z: int) -> None:
        if not 0 <= z < self.config.sections:
            raise DataError(
                f"the phantom has sections 0..{self.config.sections - 1}, got z={z}; "
                "raise `sections` for more"
            )
