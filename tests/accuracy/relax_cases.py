"""The stacks of the tables of relaxation: known truths, and what is made wrong with them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from tests.accuracy.changing import COPIES as FEW_COPIES
from tests.accuracy.changing import make_changing
from tests.accuracy.recipes import RECIPES, Recipe
from tests.accuracy.sets import SETS
from tests.accuracy.stacks import KnownStack, make_stack

Truth = Literal["twins", "neighbours", "changing"]
Flaw = Literal["none", "outliers", "missing", "re-ordered"]

FLAWS: tuple[Flaw, ...] = get_args(Flaw)
SEED = 7
COPIES = 10
"""Of each section, for twins: enough for drift to show."""

AS_IS = Recipe(
    rotation_deg=0, stretch=0, shift_px=0, elastic_px=0, gain=0, bias=0, noise=0, folds=0,
    cracks=0, blanks=0,
)  # fmt: skip
"""The control: sections as they came. Whatever moves them is an error, too."""


@dataclass(frozen=True)
class Case:
    """One stack of the tables."""

    name: str
    """Of `sets.SETS`."""
    truth: Truth
    recipe: str
    """Of `recipes.RECIPES`; "as is" for the control."""
    flaw: Flaw = "none"
    sections: int = 20

    @property
    def label(self) -> str:
        """A name for files."""
        words = (self.name, self.truth, self.recipe, self.flaw, str(self.sections))
        return "-".join(word.replace(" ", "_") for word in words)

    @property
    def gone(self) -> tuple[int, ...]:
        """Sections that show nothing, one in the middle of each group."""
        if self.flaw != "missing":
            return ()
        if self.truth == "twins":
            return tuple(range(COPIES // 2, self.sections, COPIES))
        return (self.sections // 2,)

    def make(self) -> KnownStack:
        """Return the stack. For neighbours the truth is that of the set's own alignment."""
        base = SETS[self.name]()[: self.sections]
        recipe = AS_IS if self.recipe == "as is" else RECIPES[self.recipe]
        if self.truth == "changing":
            return make_changing(base, recipe, seed=SEED, groups=self.sections // FEW_COPIES)
        stack = make_stack(base, self.truth, recipe, seed=SEED, copies=COPIES)
        if self.gone:
            images = stack.images.copy()
            images[list(self.gone)] = 0
            stack = replace(stack, images=images)
        return swapped(stack, self.sections // 2) if self.flaw == "re-ordered" else stack


def swapped(stack: KnownStack, z: int) -> KnownStack:
    """Return the stack with sections z and z + 1 in each other's place."""
    order = np.arange(len(stack.images))
    order[[z, z + 1]] = order[[z + 1, z]]
    return replace(
        stack,
        images=stack.images[order],
        maps=tuple(stack.maps[k] for k in order),
        base=tuple(stack.base[k] for k in order),
    )


def cases(names: list[str], flaws: list[Flaw]) -> list[Case]:
    """Return the cases of some sets: twins, neighbours, the control, and the flaws of `std`."""
    made = []
    for name in names:
        truths: tuple[Truth, ...] = ("twins", "neighbours")
        for truth in truths if name != "phantom" else truths[1:]:
            made += [Case(name, truth, recipe) for recipe in RECIPES if "none" in flaws]
            made += [
                Case(name, truth, "std", flaw)
                for flaw in flaws
                # Copies of one section have no order.
                if flaw != "none" and not (flaw == "re-ordered" and truth == "twins")
            ]
        if "none" in flaws:
            made.append(Case(name, "neighbours", "as is"))
    return made
