"""One frozen model per stage. Values are px at the `mip` beside them; units are in the names.

The docstring under a field is its help everywhere: in the YAML that `petalign init` writes, in the
form of the DAG, and in error messages.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from alignment.errors import ConfigError

Mip = Annotated[int, Field(ge=0, le=12)]
Px = Annotated[int, Field(gt=0, le=65_536)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Nanometre = Annotated[float, Field(gt=0.0, le=1e6)]


class Config(BaseModel):
    """Base of every configuration model: frozen, and a key that is not known is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )


ReadBack = Literal["none", "size", "full"]


class VolumeConfig(Config):
    """How volumes are laid out in storage (z, y, x)."""

    resolution_nm: tuple[Nanometre, Nanometre, Nanometre] | None = None
    """Voxel size (z, y, x); null takes the source's own, or 40 x 4 x 4 if it states none."""
    section_shard_px: Px = 4096
    """Side of the shards of `sections/` (1 x side x side), one object each."""
    section_chunk_px: Px = 512
    """Side of the chunks that are read singly inside a section's shard."""
    aligned_shard: tuple[Px, Px, Px] = (32, 2048, 2048)
    """Shape of one object of `aligned/`: the unit of rendering."""
    aligned_chunk: tuple[Px, Px, Px] = (32, 128, 128)
    """Shape of the chunks that are read singly inside an aligned shard."""
    slab_sections: Annotated[int, Field(ge=1, le=65_536)] = 64
    """Above so many sections Airflow maps each stage over slabs of them, rounded up to whole shards
    of `aligned_shard`; each slab is one task with a Dask driver of its own."""
    read_back: ReadBack = "size"
    """What is looked at before a unit is recorded: nothing, the size of its objects, or all bytes.
    Bodies carry checksums that an S3 server checks in any case."""

    @property
    def slab_depth(self) -> int:
        """Sections of a slab: `slab_sections`, rounded up to whole shards of the aligned volume."""
        shard = self.aligned_shard[0]
        return -(-self.slab_sections // shard) * shard

    @model_validator(mode="after")
    def _shards_are_whole_chunks(self) -> Self:
        for name, shard, chunk in (
            ("section_chunk_px", (self.section_shard_px,), (self.section_chunk_px,)),
            ("aligned_chunk", self.aligned_shard, self.aligned_chunk),
        ):
            if any(s % c for s, c in zip(shard, chunk, strict=True)):
                raise ValueError(
                    f"{name}={chunk} does not divide its shard {shard}; use divisors of each axis"
                )
        return self


class MasksConfig(Config):
    """What may be matched."""

    mip: Mip = 1
    """Where the masks are computed; they serve every coarser and finer mip."""
    drawn: str = ""
    """A stack as large as the source, in which a person painted (any value but 0) what must not be
    used; its URI. Empty: nothing was painted."""
    network: str = ""
    """URI of a network that marks what must not be used, made by `petalign train unet` from images
    of the size that sections have at `mip`. Frozen by its content. Empty: none."""
    network_above: Fraction = 0.5
    """Probability of a class beside the background above which the network's mark counts."""
    network_finds: Literal["no_data", "fold", "crack"] = "no_data"
    """What its marks count as; at folds and cracks the mesh may tear, too."""
    saturated_low: Annotated[int, Field(ge=0, le=255)] = 0
    """Pixels at or below this value carry no tissue (no data)."""
    saturated_high: Annotated[int, Field(ge=0, le=255)] = 254
    """Pixels at or above this value carry no tissue (over-exposed, holes)."""
    min_object_px: Annotated[int, Field(ge=0)] = 256
    """Smaller invalid specks are texture, not defects, and stay valid; px at `mip`."""
    flat_std: Annotated[float, Field(ge=0.0, le=128.0)] = 3.0
    """Where the local standard deviation (grey values) is below this, resin or a blank."""
    min_valid_fraction: Fraction = 0.1
    """A section with less valid tissue than this is treated as missing and bridged."""
    grow_px: Annotated[int, Field(ge=0, le=1024)] = 4
    """Defects are grown by this much, px at `mip`."""
    band_min_length_px: Annotated[int, Field(ge=0, le=65_536)] = 512
    """Shorter dark or bright bands are tissue, not folds or cracks; px at `mip`. In a section so
    small that it hardly holds one, 0.8 of its shorter side suffices. 0 looks for none."""
    band_max_width_px: Px = 128
    """Widest fold or crack that is looked for, px at `mip`."""
    fold_contrast: Annotated[float, Field(ge=0.5, le=10.0)] = 1.5
    """A fold lies this many spreads (median - percentile 10) below the local median. Raise it where
    dark tissue is taken for folds."""
    crack_contrast: Annotated[float, Field(ge=0.5, le=10.0)] = 2.0
    """A bright crack lies this many spreads (percentile 90 - median) above the local median."""
    seam_min_length_px: Annotated[int, Field(ge=0, le=65_536)] = 384
    """Shorter straight steps along an axis are tissue, not seams of tiles; px at `mip`. 0 looks for
    none."""
    seam_min_step: Annotated[float, Field(gt=0.0, le=1.0)] = 0.35
    """Least step of grey, in spreads (percentile 90 - 10), of a seam of that length; a seam four
    times as long may be half as strong."""
    seam_width_px: Annotated[int, Field(ge=1, le=255)] = 3
    """Width of the strip that is masked along a seam before it is grown, px at `mip`."""
    clipped_share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """Where more than this share of a window of 31 px lies at or beyond `saturated_low` or
    `saturated_high`, tissue is under- or over-exposed; 1 turns it off."""
    underexposed_fraction: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.25
    """Windows darker than this share of the section's median, with less than half of its contrast,
    are under-exposed; 0 turns it off."""


class FeaturesConfig(Config):
    """Images that are easier to match: by a band-pass, or by a network that learned it."""

    kind: Literal["bandpass", "nccnet"] = "bandpass"
    """A difference of Gaussians divided by the local contrast, or the network of `model`."""
    model: str = ""
    """URI of a network for `nccnet`, made by `petalign train nccnet`; the shipped one if empty.
    Frozen by its content."""
    mip: Mip = 0
    """Finest level at which sections may be matched."""
    sigma_fine_px: Annotated[float, Field(ge=0.0, le=64.0)] = 1.0
    """Detail below this is noise."""
    sigma_coarse_px: Annotated[float, Field(gt=0.0, le=1024.0)] = 12.0
    """Structure above this is staining and illumination."""

    @model_validator(mode="after")
    def _only_a_network_is_named(self) -> Self:
        if self.model and self.kind != "nccnet":
            raise ValueError(
                f"model={self.model!r} with kind={self.kind!r}, which takes none; set kind=nccnet "
                "to match by the network"
            )
        return self

    @model_validator(mode="after")
    def _band_is_not_empty(self) -> Self:
        if self.sigma_coarse_px <= self.sigma_fine_px:
            raise ValueError(
                f"sigma_coarse_px={self.sigma_coarse_px} must exceed "
                f"sigma_fine_px={self.sigma_fine_px}"
            )
        return self


class CoarseConfig(Config):
    """One affine per section: rotation-safe, solved over the whole stack, not chained."""

    mip: Mip = 2
    """Where pairs are compared; lowered by itself for small sections."""
    neighbours: Annotated[int, Field(ge=1, le=8)] = 3
    """Each section is compared with this many earlier ones, so that one bad pair is bridged."""
    max_rotation_deg: Annotated[float, Field(ge=0.0, le=180.0)] = 180.0
    """Pairs that turn further are not believed."""
    max_scale_change: Annotated[float, Field(gt=0.0, le=1.0)] = 0.15
    """Pairs that stretch or shear by more than this fraction are not believed."""
    min_inliers: Annotated[int, Field(ge=4)] = 12
    """Fewer blocks that agree than this is no match."""
    rigidity: Annotated[float, Field(ge=0.0)] = 0.1
    """Pull of each section towards a rigid transform; a trace (1e-3) always remains."""
    mirrored: Literal["flip", "report"] = "flip"
    """What is done with a section that lies the wrong side up: flip it back, or leave it as it is,
    bridged by its neighbours. It is reported in both cases."""


class MatchLevel(Config):
    """One level of matching, coarse to fine."""

    mip: Mip
    """Level of the pyramid; px below are at this mip."""
    template_px: Annotated[int, Field(ge=8, le=512)]
    """Side of the patch of the moving section."""
    search_radius_px: Px
    """Largest displacement from the coarser level's answer that can be found."""
    node_spacing_px: Px
    """Distance of the matched points."""

    @model_validator(mode="after")
    def _templates_overlap(self) -> Self:
        if self.node_spacing_px > self.template_px:
            raise ValueError(
                f"node_spacing_px={self.node_spacing_px} leaves gaps between templates of "
                f"{self.template_px} px; use at most {self.template_px}"
            )
        return self


class MatchConfig(Config):
    """Template matching between neighbouring sections by masked normalised cross-correlation."""

    neighbours: Annotated[int, Field(ge=1, le=8)] = 2
    """Each section is matched with z - 1 ... z - neighbours."""
    retry_neighbours: Annotated[int, Field(ge=0, le=8)] = 3
    """Tissue without a trusted match to any of them is tried with farther ones, up to this one."""
    long_range: tuple[Annotated[int, Field(ge=2, le=512)], ...] = ()
    """Sections far back with which some sections are matched too, e.g. [8, 32], against slow drift
    of long stacks; multiples of long_range_every."""
    long_range_every: Annotated[int, Field(ge=1, le=512)] = 8
    """Every such section has long-range matches; the others follow by those to their neighbours."""
    levels: Annotated[tuple[MatchLevel, ...], Field(min_length=1, max_length=6)] = (
        MatchLevel(mip=2, template_px=64, search_radius_px=24, node_spacing_px=32),
        MatchLevel(mip=1, template_px=64, search_radius_px=10, node_spacing_px=16),
    )
    """Coarse to fine: each level centres its search on the answer of the one before."""
    refine: Annotated[tuple[MatchLevel, ...], Field(max_length=4)] = (
        MatchLevel(mip=1, template_px=64, search_radius_px=6, node_spacing_px=16),
        MatchLevel(mip=1, template_px=64, search_radius_px=6, node_spacing_px=16),
        MatchLevel(mip=0, template_px=160, search_radius_px=6, node_spacing_px=32),
    )
    """Rounds after the levels, each against sections warped by the smoothed answer before it."""
    refine_smoothing_nodes: Annotated[float, Field(ge=0.5, le=8.0)] = 1.5
    """Sigma of the Gaussian that smooths that answer where matches are uncertain; where they are
    not, less than half of it."""
    min_overlap: Fraction = 0.3
    """Share of a template that must lie on valid tissue of both sections."""

    @model_validator(mode="after")
    def _levels_refine(self) -> Self:
        mips = [level.mip for level in self.levels]
        if any(coarse < fine for coarse, fine in pairwise(mips)):
            raise ValueError(f"levels must go from coarse to fine, got mips {mips}")
        finest = self.levels[-1].node_spacing_px << self.levels[-1].mip
        for level in self.refine:
            spacing = level.node_spacing_px << level.mip
            if spacing != finest:
                raise ValueError(
                    f"refine has nodes every {spacing} px of mip 0, the last of levels every "
                    f"{finest} px; they must be equal"
                )
        return self

    @model_validator(mode="after")
    def _long_range_is_far_and_chained(self) -> Self:
        nearest = max(self.neighbours, self.retry_neighbours)
        if any(far <= nearest for far in self.long_range) or len(set(self.long_range)) < len(
            self.long_range
        ):
            raise ValueError(
                f"long_range={list(self.long_range)}: expected different numbers above {nearest}, "
                "the farthest of neighbours and retry_neighbours"
            )
        if loose := [far for far in self.long_range if far % self.long_range_every]:
            raise ValueError(
                f"long_range={list(self.long_range)}: {loose} are no multiples of "
                f"long_range_every={self.long_range_every}, so their sections would not be tied to "
                "each other; change one of the two"
            )
        return self

    @property
    def mips(self) -> tuple[int, ...]:
        """Mips at which sections are compared, ascending."""
        return tuple(sorted({level.mip for level in (*self.levels, *self.refine)}))


class FilterConfig(Config):
    """What is not believed: rejected matches become NaN, each with its reason."""

    model: str = ""
    """A model of confidence made from matches of known truth, as JSON; its URI. Empty: the one that
    comes with the package."""
    min_score: Fraction = 0.15
    """Normalised cross-correlation at the best position."""
    min_peak_ratio: Annotated[float, Field(ge=1.0, le=100.0)] = 1.1
    """Best over second-best peak; below this the two best positions are too alike to choose."""
    min_r_delta: Fraction = 0.01
    """Score minus the highest one more than 5 px away, px at the mip of the last round."""
    min_sharpness: Annotated[float, Field(ge=0.0, le=2.0)] = 0.0
    """Share of the score that is lost within 5 px of it; below this the peak is a plateau."""
    min_mirror: Fraction = 0.0
    """Share of the score that the template turned by 180 degrees does not reach: chance does."""
    max_curvature_ratio: Annotated[float, Field(ge=4.0)] = 12.0
    """tr^2 / det of the peak's Hessian; above this the peak is a ridge, known only across it."""
    max_median_deviation_px: Annotated[float, Field(gt=0.0)] = 8.0
    """Largest distance from the median of the neighbouring matches, px at mip 0."""
    max_strain: Annotated[float, Field(gt=0.0)] = 0.3
    """Largest change of displacement between neighbouring nodes, px per px."""
    min_component_nodes: Annotated[int, Field(ge=1)] = 4
    """Smaller islands of agreeing matches are dropped."""
    max_cycle_px: Annotated[float, Field(gt=0.0)] = 5.0
    """Largest disagreement of z-1 after z-1 with z-2, px at mip 0."""
    damage_margin_px: Annotated[float, Field(ge=0.0, le=4096.0)] = 8.0
    """Matches nearer than this to masked damage (folds, cracks, holes, blanks) see tissue on both
    sides of it and are left out; px at mip 0. 0 keeps them."""
    min_confidence: Fraction = 0.0
    """Probability that a match which passed all else is right to within 1 px. The solver does best
    with all of them, weighted; who reads matches themselves halves the false ones with 0.1."""


class RelaxConfig(Config):
    """Elastic mesh over all sections: one robust, sparse linear least-squares problem."""

    node_spacing_px: Annotated[int, Field(ge=4, le=4096)] = 32
    """Distance of the mesh's nodes, px at mip 0."""
    stiffness: Annotated[float, Field(gt=0.0, le=1e6)] = 3.0
    """Against matches every 32 px that are sure to 1 px: at 1, such a match off by 1 px costs as
    much as 3 % strain. Surer matches weigh up to 100 times as much."""
    poisson_ratio: Annotated[float, Field(ge=0.0, lt=0.5)] = 0.25
    """Of the elastic sheet."""
    anchor: Annotated[float, Field(gt=0.0, le=1.0)] = 0.03
    """Weak pull to the coarse position; bounds the drift of long stacks."""
    huber_px: Annotated[float, Field(gt=0.0)] = 6.0
    """Residuals beyond this count linearly: wrong matches lose their grip."""
    robust_iterations: Annotated[int, Field(ge=1, le=500)] = 50
    """Most of Newton's rounds; some ten are enough."""
    tolerance: Annotated[float, Field(gt=0.0, lt=1.0)] = 1e-8
    """Relative residual (of the whole volume's gradient) at which the solver stops; displacements
    are then right to some 1e-5 px."""
    max_iterations: Annotated[int, Field(ge=1)] = 500
    """Conjugate-gradient steps of one round before a ConvergenceError."""
    locked: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Sections that stay where the coarse stage put them; the others come to them."""
    slab_sections: Annotated[int, Field(ge=0)] = 0
    """A stack is relaxed in slabs of about so many sections (4 at least), side by side, with the
    answer of one solve. 0: in slabs of 64, and only beyond four million nodes, 1.8 GB of memory."""
    tile_nodes: Annotated[int, Field(ge=32)] = 256
    """Slabs that are wider are cut into tiles of about so many nodes a side."""
    max_sweeps: Annotated[int, Field(ge=1)] = 40
    """Rounds over all slabs and tiles before a ConvergenceError; some six are enough."""


class RenderConfig(Config):
    """Resampling of the source images into the aligned volume."""

    interpolation: Literal["nearest", "linear", "cubic", "lanczos"] = "lanczos"
    """Lanczos (8 x 8 px) keeps the finest detail."""
    bridge_missing: Literal["blank", "copy"] = "blank"
    """A missing section is left black, or filled with its nearest good neighbour."""
    masked: Literal["keep", "zero", "neighbour", "previous"] = "keep"
    """What is shown where a section is masked (folds, cracks, dirt, no data): what is there, black,
    or the tissue of the nearest section, before or after it or only before, that is good there."""
    normalise: Literal["none", "section"] = "none"
    """Grey values as they are, or with each section's median and contrast brought to the stack's,
    measured on its valid tissue."""


class QcConfig(Config):
    """What the report measures."""

    chunk_px: Px = 64
    """Side of the chunks whose Pearson correlation is taken between neighbours, at mip 0."""
    smoothing_px: Annotated[float, Field(ge=0.0, le=16.0)] = 1.5
    """Sigma of the Gaussian before it: takes out pixel noise, which a blurring renderer hides."""
    worst_places: Annotated[int, Field(ge=0, le=100)] = 10
    """Cut-outs before and after in the report."""


class UpdateConfig(Config):
    """How far a change reaches in a volume that is published."""

    junction_sections: Annotated[int, Field(ge=0, le=1024)] = 4
    """Sections on each side of a new or changed one that are relaxed again; those beyond keep every
    byte. At least `match.neighbours` lets all that is matched with it give way."""


class PipelineConfig(Config):
    """The complete configuration of a run; frozen into the run's folder."""

    volume: VolumeConfig = VolumeConfig()
    masks: MasksConfig = MasksConfig()
    features: FeaturesConfig = FeaturesConfig()
    coarse: CoarseConfig = CoarseConfig()
    match: MatchConfig = MatchConfig()
    filter: FilterConfig = FilterConfig()
    relax: RelaxConfig = RelaxConfig()
    render: RenderConfig = RenderConfig()
    qc: QcConfig = QcConfig()
    update: UpdateConfig = UpdateConfig()

    @model_validator(mode="after")
    def _mips_agree(self) -> Self:
        coarser = [mip for mip in self.match.mips if mip < self.features.mip]
        if coarser:
            raise ValueError(
                f"match uses mip {coarser[0]}, finer than features.mip={self.features.mip}; "
                "lower features.mip or raise the level's mip"
            )
        return self


def parse_config(values: dict[str, Any] | None) -> PipelineConfig:
    """Return the validated configuration of plain nested `values`; missing ones get defaults.

    Raises
    ------
    ConfigError
        One line per fault: the field's path, the value that came, and what is allowed.
    """
    try:
        return PipelineConfig.model_validate(values or {})
    except ValidationError as error:
        raise ConfigError(describe_faults(error)) from None


def describe_faults(error: ValidationError, model: type[BaseModel] = PipelineConfig) -> str:
    """Return one line per fault of `model`: field, value, and the range or the nearest name."""
    from difflib import get_close_matches

    lines = []
    for fault in error.errors():
        path = ".".join(str(part) for part in fault["loc"]) or "configuration"
        if fault["type"] == "extra_forbidden":
            known = _known_keys(model, fault["loc"][:-1])
            near = get_close_matches(str(fault["loc"][-1]), known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(known)}"
            lines.append(f"{path}: no such setting; {hint}")
        else:
            message = fault["msg"].removeprefix("Value error, ")
            got = (
                "" if isinstance(fault["input"], dict | BaseModel) else f"; got {fault['input']!r}"
            )
            lines.append(f"{path}: {message}{got}")
    return "\n".join(lines)


def _known_keys(model: type[BaseModel], path: tuple[int | str, ...]) -> list[str]:
    for part in path:
        if isinstance(part, int):
            continue
        annotation = model.model_fields[part].annotation
        model = MatchLevel if part in ("levels", "refine") else annotation  # type: ignore[assignment]
    return sorted(model.model_fields)


def load_config(text: str) -> PipelineConfig:
    """Return the configuration of a YAML text.

    Raises
    ------
    ConfigError
        If the text is not YAML, not a mapping, or a value is not allowed.
    """
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"the configuration is not valid YAML: {error}") from None
    if values is not None and not isinstance(values, dict):
        raise ConfigError(
            f"expected a mapping of stages to their settings, got {type(values).__name__}"
        )
    return parse_config(values)


def commented_yaml(config: PipelineConfig | None = None) -> str:
    """Return the complete configuration as YAML, each value under its explanation."""
    config = config or PipelineConfig()
    lines = [
        "# petalign configuration: every setting with its default.",
        "# Lengths end in _px (at the `mip` beside them) or _nm; axes are (z, y, x).",
    ]
    for stage in PipelineConfig.model_fields:
        section: Config = getattr(config, stage)
        lines += ["", f"# {(section.__doc__ or '').splitlines()[0]}", f"{stage}:"]
        for name, field in type(section).model_fields.items():
            explained = f"{(field.description or '').strip()}{_limits(field.metadata)}"
            lines += [f"  # {line.strip()}" for line in explained.splitlines()]
            plain = section.model_dump(mode="json")[name]
            flow = None if isinstance(plain, list) else False
            value = yaml.safe_dump({name: plain}, default_flow_style=flow, sort_keys=False)
            lines += ["  " + line for line in value.rstrip().splitlines()]
    return "\n".join(lines) + "\n"


def _limits(metadata: list[Any]) -> str:
    signs = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
    found = [
        f"{sign} {getattr(item, key)}"
        for item in metadata
        for key, sign in signs.items()
        if getattr(item, key, None) is not None
    ]
    return f" ({', '.join(found)})" if found else ""
