"""A stack and its settings, as far as they can be known before a run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil, prod

from alignment.config import PipelineConfig
from alignment.decomposition import count_boxes, decompose
from alignment.fields import node_grid
from alignment.match import grid_shape, grid_spacing_px
from alignment.planning.boxes import Boxes, sum_up
from alignment.planning.marking import Marking
from alignment.pyramid import levels_of_shard
from alignment.runs import DEFAULT_RESOLUTION_NM, Run, pyramid_levels
from alignment.stages.masks import COMPARED_PX
from alignment.stages.matched import BLOCK_NODES
from alignment.stages.wholesections import compared_mip
from inference.config import NCCNetConfig
from storage.grid import ZYX

CANVAS_GROWTH = 1.05
"""How much higher and wider the aligned volume is taken to be than the largest section: sections
that are shifted and turned against each other need more room. Stacks that were in register once
took 1.03, those that never were 1.07 to 1.12."""


@dataclass(frozen=True)
class Guess:
    """What only the run itself shows, and what is taken for it beforehand."""

    canvas: tuple[int, ...] | None = None
    """(y, x) of the aligned volume; None: `CANVAS_GROWTH` times the largest section."""
    missing: int = 0
    """Sections without tissue."""
    retried: float = 1.0
    """Share of the blocks of nodes that are matched with a farther section too, because some of
    their nodes have no match."""
    sweeps: int = 6
    """Rounds over all boxes that relaxing a large stack takes."""


@dataclass(frozen=True)
class Stack:
    """Shape, settings and guesses; everything else follows from them."""

    shape: ZYX
    config: PipelineConfig
    guess: Guess = Guess()
    network: NCCNetConfig | None = None
    """Of the features; None for a band-pass, or if a run's is no longer there."""
    marking: Marking | None = None
    """By the network of the masks; None without one, or if a run's is no longer there."""

    @cached_property
    def run(self) -> Run:
        """The run that it would be, without a place; it answers what its own rules say."""
        resolution = self.config.volume.resolution_nm or DEFAULT_RESOLUTION_NM
        return Run("", "", "", "", self.shape, resolution, (), self.config, {}, {})

    @property
    def canvas(self) -> tuple[int, int]:
        """(y, x) of the aligned volume, px at mip 0."""
        ny, nx = self.guess.canvas or (ceil(CANVAS_GROWTH * n) for n in self.shape[1:])
        return ny, nx

    @property
    def aligned_shape(self) -> ZYX:
        """(z, y, x) of the aligned volume."""
        return (self.shape[0], *self.canvas)

    @property
    def present(self) -> int:
        """Sections that can be aligned."""
        return self.shape[0] - self.guess.missing

    def px(self, mip: int) -> int:
        """Pixels of one section at a mip."""
        return prod(self.run.shape_at(mip)[1:])

    @property
    def filled(self) -> float:
        """Share of the aligned volume that shows tissue."""
        tissue = self.px(0) * self.present / self.shape[0]
        return min(tissue / self.canvas_px, 1.0)

    @property
    def canvas_px(self) -> int:
        """Pixels of one aligned section at mip 0."""
        return prod(self.canvas)

    @property
    def section_mips(self) -> int:
        """Levels of the sections."""
        return self.run.section_mips

    @property
    def levels(self) -> int:
        """Levels of the aligned volume."""
        return pyramid_levels(self.aligned_shape)

    @property
    def own_levels(self) -> int:
        """Levels after mip 0 that rendering writes itself."""
        layout = self.config.volume
        return levels_of_shard(layout.aligned_shard, layout.aligned_chunk, self.levels)

    @property
    def coarse_mip(self) -> int:
        """Where the coarse stage compares sections."""
        return compared_mip(self.run)

    @property
    def likeness_mip(self) -> int:
        """Where the masks stage compares neighbours."""
        mip = self.config.masks.mip
        while max(self.run.shape_at(mip)[1:]) > COMPARED_PX and mip + 1 < pyramid_levels(
            self.shape
        ):
            mip += 1
        return mip

    def pairs(self, neighbours: int) -> int:
        """Pairs of each section with so many earlier ones."""
        return sum(max(self.present - k, 0) for k in range(1, neighbours + 1))

    @property
    def far_pairs(self) -> int:
        """Pairs with sections far back."""
        match = self.config.match
        chain = ceil(self.present / match.long_range_every)
        return sum(max(chain - far // match.long_range_every, 0) for far in match.long_range)

    @property
    def match_pairs(self) -> int:
        """Pairs that are matched anyway."""
        return self.pairs(self.config.match.neighbours) + self.far_pairs

    @property
    def retries(self) -> range:
        """Which farther neighbours are tried where nearer ones left holes."""
        match = self.config.match
        return range(match.neighbours + 1, match.retry_neighbours + 1)

    @property
    def retry_pairs(self) -> list[int]:
        """Pairs that may be retried, by retry."""
        return [max(self.present - k, 0) for k in self.retries]

    @property
    def retried_blocks(self) -> list[int]:
        """Blocks that are retried, by retry."""
        return [round(self.guess.retried * pairs * self.blocks) for pairs in self.retry_pairs]

    @property
    def retried_pairs(self) -> int:
        """Pairs of which some block is retried."""
        share = 1 - (1 - self.guess.retried) ** self.blocks
        return sum(round(share * pairs) for pairs in self.retry_pairs)

    @property
    def distances(self) -> int:
        """Distances d over which sections are matched, retries too; none is missing."""
        match = self.config.match
        near = min(match.neighbours, self.present - 1)
        chain = ceil(self.present / match.long_range_every)
        far = sum(1 for d in match.long_range if chain > d // match.long_range_every)
        again = sum(1 for pairs in self.retry_pairs if pairs) if self.retried_pairs else 0
        return near + far + again

    @property
    def match_grid(self) -> tuple[int, int]:
        """Nodes (y, x) of a pair's matches."""
        return grid_shape(self.canvas, self.config.match)

    @property
    def match_nodes(self) -> int:
        """Nodes of a pair's matches."""
        return prod(self.match_grid)

    @property
    def blocks(self) -> int:
        """Blocks of nodes that a pair is matched in."""
        return prod(ceil(n / BLOCK_NODES) for n in self.match_grid)

    @property
    def rounds(self) -> int:
        """Rounds of matching."""
        return 1 + len(self.config.match.refine)

    @property
    def mesh(self) -> tuple[int, int]:
        """Nodes (y, x) of a section's field."""
        return node_grid(self.canvas, self.config.relax.node_spacing_px)

    @property
    def mesh_nodes(self) -> int:
        """Nodes of a section's field."""
        return prod(self.mesh)

    @cached_property
    def is_cut(self) -> bool:
        """Whether the stack is relaxed in boxes."""
        grid = (self.shape[0], *self.mesh)
        return count_boxes(grid, self.config.relax) != (1, 1, 1)

    @cached_property
    def boxes(self) -> Boxes:
        """The boxes it is relaxed in, if matches are as long as they may be."""
        match = self.config.match
        retried = match.retry_neighbours if self.retried_pairs else 0
        cut = decompose(
            (self.shape[0], *self.mesh),
            *(self.config.relax, grid_spacing_px(match)),
            farthest=max(match.neighbours, retried, *match.long_range, 1),
            reach_px=max(level.search_radius_px << level.mip for level in match.levels),
        )
        return sum_up(cut)

    @property
    def slabs(self) -> int:
        """Slabs that a stage is mapped over."""
        return max(ceil(self.shape[0] / self.config.volume.slab_depth), 1)
