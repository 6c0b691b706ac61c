"""Template matching: where does a patch of one section lie in its neighbour?

Vectors are (dy, dx). A match at node p is the displacement m for which the fixed section shows at
``p + m`` the tissue that the moving section shows at p: the template is cut from the moving section
round p and searched for in the fixed one. Inside a level values are px at the level's mip; what
`match_block` returns is in px at mip 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from alignment.config import MatchConfig, MatchLevel
from alignment.correlation import peak_covariance, tent_taper
from alignment.errors import DataError, ShapeError
from alignment.fields import node_grid
from alignment.ncc import FeatureImage, find_matches

Floats = NDArray[np.float32]
Bools = NDArray[np.bool_]
NodeBox = tuple[tuple[int, int], tuple[int, int]]
"""Half-open box of nodes: the first (i, j), and the one behind the last."""
Spans = tuple[tuple[int, int], tuple[int, int]]
"""The same by axis: (i0, i1), (j0, j1)."""

CHANNELS = (
    "dy",
    "dx",
    "score",
    "peak_ratio",
    "r_delta_5",
    "r_delta_10",
    "r_delta_15",
    "sharpness",
    "mirror",
    "curvature_ratio",
    "overlap",
    "cov_yy",
    "cov_yx",
    "cov_xx",
)
"""What is known of a match: px at mip 0, numbers without unit, px^2 at mip 0; NaN where none is.

`correlation.Peaks` says what the numbers are; `overlap` is the share of the template's weight that
lies on its valid pixels.
"""

SAMPLE_PX2 = 112.0
"""Area, px^2 at mip 0, over which tissue changes as one between sections: calibrated.

With it the errors of single matches have the spread that their covariance says, on synthetic
neuropil one or two sections apart, within a factor of 1.4 in sigma at mips 0 to 2 and for
templates of 32 to 96 px. Without change of the tissue, on real sections and warped copies of them,
the spread is 0.4 of that.
"""

_MIN_SAMPLE_PX = 7.0  # features correlate with themselves over this many px of their own mip
_TILE_PX = 2048  # side of what is matched in one call of the engine
_GATE_SCORE, _GATE_R_DELTA = 0.2, 0.05  # what a coarser level's answer needs to guide the next
_FILL_ROUNDS = 2  # how far, in nodes, such answers spread into holes
_REACH = 2 + _FILL_ROUNDS  # nodes of a coarser level that one node of the next depends on


@dataclass(frozen=True)
class Patch:
    """Part of one section's feature image at one mip, in the common frame."""

    features: Floats
    """(y, x), as `features.normalise` gives them; not looked at where `valid` is False."""
    valid: Bools
    """(y, x), True where tissue may be used; what the patch does not cover is invalid too."""
    origin: tuple[int, int]
    """Where pixel [0, 0] lies in the common frame, (y, x) px at `mip`."""
    mip: int

    def __post_init__(self) -> None:
        """Raise ShapeError if the two images differ in shape."""
        if self.features.ndim != 2 or self.features.shape != self.valid.shape:
            raise ShapeError(
                "a patch needs features and valid of one shape (y, x), got "
                f"{self.features.shape} and {self.valid.shape}"
            )


def grid_spacing_px(config: MatchConfig) -> int:
    """Return the distance of the finest level's nodes, px at mip 0.

    Node (i, j) lies on pixel (i * spacing, j * spacing) of the common frame at mip 0.
    """
    return _spacing(config.levels[-1])


def grid_shape(canvas_yx: tuple[int, int], config: MatchConfig) -> tuple[int, int]:
    """Return how many nodes (ny, nx) reach the last pixel of a canvas of mip 0 px."""
    return node_grid(canvas_yx, grid_spacing_px(config))


def halo_px(config: MatchConfig) -> int:
    """Return the margin round the nodes of a block that its patches must cover, px at mip 0.

    With less, or where the section ends, the missing part counts as invalid.
    """
    shift = halo = 0
    for k, level in enumerate(config.levels):
        # From a node to the far edge of its search window, wherever the coarser levels sent that.
        shift += (level.search_radius_px + 1) << level.mip
        reach = sum(_REACH * _spacing(coarser) for coarser in config.levels[k:-1])
        halo = max(halo, reach + shift + ((level.template_px // 2 + 1) << level.mip))
    return halo


def match_block(
    fixed: Mapping[int, Patch],
    moving: Mapping[int, Patch],
    node_box: NodeBox,
    grid_shape: tuple[int, int],
    config: MatchConfig,
) -> Floats:
    """Match the nodes of one block of a pair of sections, coarse to fine.

    Each level searches round the answer of the coarser one: those of its matches that are good
    enough, median-filtered over 3 x 3 nodes, spread two nodes into holes, interpolated to the
    finer nodes and rounded to whole pixels, so that no image is resampled. The first level
    searches round 0. A node with no such answer near is not matched.

    Parameters
    ----------
    fixed, moving : mapping of int to Patch
        By mip, one for each of `config.levels`; both sections warped into the common frame by
        their coarse affines. They should reach `halo_px` beyond the block's nodes.
    node_box : ((i0, j0), (i1, j1))
        The block: nodes i0 <= i < i1, j0 <= j < j1 of the finest level.
    grid_shape : (ny, nx)
        Nodes of the whole canvas, as the function of that name gives them.
    config : MatchConfig
        Levels and the least overlap.

    Returns
    -------
    float32 ndarray of shape (len(CHANNELS), i1 - i0, j1 - j0)
        The matches, by `CHANNELS`: displacement in px at mip 0; the score, a weighted correlation
        in -1..1; the other statistics of `correlation.Peaks`: ratio, r_delta, sharpness, mirror and
        curvature ratio; the share of the template's weight on valid pixels; covariance of the
        displacement, px^2 at mip 0. All NaN where there is no
        match: too little overlap, a flat patch, a best position at the rim of the search range or
        without a proper maximum. The values of a node do not depend on the block.

    Raises
    ------
    DataError
        If a level's patch is missing, is of another mip, or the box lies outside the grid.

    Notes
    -----
    The displacement belongs to the middle of the template, which lies within half a pixel (at the
    level's mip) of the node, since nodes fall on whole pixels at mip 0 only.
    """
    (i0, j0), (i1, j1) = node_box
    if not (0 <= i0 <= i1 <= grid_shape[0] and 0 <= j0 <= j1 <= grid_shape[1]):
        raise DataError(f"node_box {node_box} leaves the grid of {grid_shape} nodes (y, x)")
    for name, patches in (("fixed", fixed), ("moving", moving)):
        for level in config.levels:
            if level.mip not in patches or patches[level.mip].mip != level.mip:
                have = {key: patch.mip for key, patch in patches.items()}
                raise DataError(
                    f"match.levels needs a patch of mip {level.mip}; `{name}` has {have} "
                    "(key: mip of the patch)"
                )
    if i0 == i1 or j0 == j1:
        return np.empty((len(CHANNELS), i1 - i0, j1 - j0), np.float32)
    spans = _level_spans(((i0, i1), (j0, j1)), grid_shape, config)
    guess = np.zeros((2, *(b - a for a, b in spans[0])), np.float32)
    matches = guess
    for k, level in enumerate(config.levels):
        if k:
            coarser = _spacing(config.levels[k - 1])
            guess = _interpolate(gate(matches), spans[k - 1], coarser, spans[k], _spacing(level))
        matches = _match_level(
            fixed[level.mip], moving[level.mip], spans[k], guess, level, config.min_overlap
        )
    return matches


def gate(matches: Floats) -> Floats:
    """Return displacements that are good enough to search round.

    Parameters
    ----------
    matches : float32 ndarray of shape (len(CHANNELS), ny, nx)
        Of one level, or of all.

    Returns
    -------
    float32 ndarray of shape (2, ny, nx)
        Median over 3 x 3 nodes of the matches with enough score and r_delta, spread two nodes
        further into holes; NaN beyond.
    """
    score, r_delta = (matches[CHANNELS.index(name)] for name in ("score", "r_delta_5"))
    with np.errstate(invalid="ignore"):
        good = (score >= _GATE_SCORE) & (r_delta >= _GATE_R_DELTA)
    guide = local_median(np.where(good, matches[:2], np.float32(np.nan)))
    for _ in range(_FILL_ROUNDS):
        guide = np.where(np.isnan(guide), local_median(guide), guide)
    return guide


def local_median(
    values: Floats, radius: int = 1, *, own: bool = True, slope: Floats | None = None
) -> Floats:
    """Median of each node's neighbourhood by component, unknown nodes left out.

    Parameters
    ----------
    values : float32 ndarray of shape (c, ny, nx)
        Vectors at nodes; NaN in all components where unknown.
    radius : int
        The neighbourhood is a square of 2 * radius + 1 nodes, cut at the edge of the grid.
    own : bool
        Whether a node is part of its neighbourhood.
    slope : float32 ndarray of shape (2, c, ny, nx), optional
        Change of `values` per node along y and along x. The neighbours' values are carried to the
        node along it, so that a one-sided neighbourhood is not taken for a deviation.

    Returns
    -------
    float32 ndarray of shape (c, ny, nx)
        NaN where the whole neighbourhood is unknown.
    """
    side = 2 * radius + 1
    edge = ((0, 0), (radius, radius), (radius, radius))
    padded = np.pad(values, edge, constant_values=np.float32(np.nan))
    offset_y, offset_x = (o.ravel() for o in np.mgrid[-radius : radius + 1, -radius : radius + 1])
    median = np.empty_like(values)
    for row in range(values.shape[1]):  # all rows at once would need (2 * radius + 1)^2 copies
        squares = np.lib.stride_tricks.sliding_window_view(
            padded[:, row : row + side], (side, side), axis=(1, 2)
        )
        around = squares.copy().reshape(*values.shape[::2], side * side)
        if slope is not None:
            slope_y, slope_x = slope[:, :, row, :, np.newaxis]
            around -= slope_y * offset_y + slope_x * offset_x
        if not own:
            around[..., side * side // 2] = np.nan
        around.sort(axis=-1)  # NaN goes last
        count = np.count_nonzero(~np.isnan(around), axis=-1)[..., np.newaxis]
        low, high = (
            np.take_along_axis(around, np.maximum(k, 0), -1)[..., 0]
            for k in ((count - 1) // 2, count // 2)
        )
        median[:, row] = (low + high) / 2
    return median


# --------------------------------------------------------------------------- one level


def _match_level(
    fixed: Patch,
    moving: Patch,
    spans: Spans,
    guess: Floats,
    level: MatchLevel,
    min_overlap: float,
) -> Floats:
    """Match the nodes of `spans`, searching round `guess` (2, ny, nx), px at mip 0."""
    t, r = level.template_px, level.search_radius_px
    scale = 2.0**level.mip
    shape = guess.shape[1:]
    rows, columns = (_template_starts(a, b, level) for a, b in spans)
    starts = np.stack(np.meshgrid(rows, columns, indexing="ij")).reshape(2, -1)
    todo = np.flatnonzero(~np.isnan(guess).any(0))
    centres = np.zeros(starts.shape, np.intp)
    centres[:, todo] = np.rint(guess.reshape(2, -1)[:, todo] / scale)

    seen = (
        FeatureImage.of(fixed.features, fixed.valid),
        FeatureImage.of(moving.features, moving.valid),
    )
    windows = starts + centres - r - np.reshape(fixed.origin, (2, 1))
    templates = starts - np.reshape(moving.origin, (2, 1))
    jobs = np.vstack([np.zeros_like(starts[:1]), windows, np.ones_like(starts[:1]), templates]).T
    result = np.full((len(CHANNELS), starts.shape[1]), np.nan, np.float32)
    px_per_sample = max(SAMPLE_PX2 / scale**2, _MIN_SAMPLE_PX)
    for nodes in _tiles(todo, shape, level):
        peaks, overlap = find_matches(
            seen,
            jobs[nodes].astype(np.int32),
            template_px=t,
            search_radius_px=r,
            min_overlap=min_overlap,
        )
        covariance = peak_covariance(peaks, tent_taper(t), px_per_sample=px_per_sample)
        result[:, nodes] = np.vstack(
            [
                (peaks.offset + centres[:, nodes] - r) * scale,
                peaks.score,
                peaks.ratio,
                peaks.r_delta,
                peaks.sharpness,
                peaks.mirror,
                peaks.curvature_ratio,
                overlap,
                covariance / overlap * scale**2,
            ]
        )
    return result.reshape(len(CHANNELS), *shape)


def _tiles(
    nodes: NDArray[np.intp], shape: tuple[int, int], level: MatchLevel
) -> Iterator[NDArray[np.intp]]:
    """Part nodes into squares of the grid: what the engine keeps of an image stays bounded."""
    side = max(1, _TILE_PX // level.node_spacing_px)
    row, column = np.divmod(nodes, shape[1])
    tile = row // side * (shape[1] // side + 1) + column // side
    order = np.argsort(tile, kind="stable")
    yield from (
        np.split(nodes[order], np.flatnonzero(np.diff(tile[order])) + 1) if nodes.size else ()
    )


# --------------------------------------------------------------------------- between levels


def _spacing(level: MatchLevel) -> int:
    return level.node_spacing_px << level.mip


def _level_spans(spans: Spans, grid_shape: tuple[int, int], config: MatchConfig) -> list[Spans]:
    """Nodes of every level, on its own grid over the whole canvas, that a block depends on."""
    finest = _spacing(config.levels[-1])
    canvas = (grid_shape[0] - 1) * finest + 1, (grid_shape[1] - 1) * finest + 1
    result = [spans]
    for level, finer in reversed(list(pairwise(config.levels))):
        ratio = _spacing(finer), _spacing(level)
        (i0, i1), (j0, j1) = (
            (
                max(a * ratio[0] // ratio[1] - _REACH + 1, 0),
                min(-(-(b - 1) * ratio[0] // ratio[1]) + _REACH, n),
            )
            for (a, b), n in zip(result[0], node_grid(canvas, _spacing(level)), strict=True)
        )
        result.insert(0, ((i0, i1), (j0, j1)))
    return result


def _interpolate(
    guide: Floats, spans: Spans, spacing: int, finer_spans: Spans, finer_spacing: int
) -> Floats:
    """Bilinear values at the nodes of `finer_spans` of `guide`, given at the nodes of `spans`.

    Unknown corners are left out.
    """
    total = np.zeros((2, *(b - a for a, b in finer_spans)), np.float64)
    weight_sum = np.zeros(total.shape[1:])
    corners, fractions = [], []
    for (a, b), (first, last) in zip(finer_spans, spans, strict=True):
        at_px = np.arange(a, b) * finer_spacing
        low = at_px // spacing - first
        corners.append((low, np.minimum(low + 1, last - first - 1)))
        fractions.append((1 - at_px % spacing / spacing, at_px % spacing / spacing))
    for ys, wy in zip(corners[0], fractions[0], strict=True):
        for xs, wx in zip(corners[1], fractions[1], strict=True):
            value = guide[:, ys[:, None], xs]
            weight = np.where(np.isnan(value).any(0), 0, wy[:, None] * wx)
            total += np.where(weight > 0, value, 0) * weight
            weight_sum += weight
    with np.errstate(invalid="ignore"):
        return np.where(weight_sum > 0, total / weight_sum, np.nan).astype(np.float32)


def _template_starts(first: int, last: int, level: MatchLevel) -> NDArray[np.intp]:
    """First pixel, at the level's mip, of the templates of nodes first .. last - 1 of one axis."""
    node = (np.arange(first, last) * _spacing(level) + 0.5) / 2**level.mip - 0.5
    return np.floor(node - (level.template_px - 1) / 2 + 0.5).astype(np.intp)
