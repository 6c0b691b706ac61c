"""Stage "features": band-passed, contrast-normalised images at every level of matching."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from alignment.config import FeaturesConfig
from alignment.features import normalise
from alignment.runs import Run, load
from alignment.stages import inputs
from alignment.stages.units import Phase, Record, Ref, Section
from inference.model import FeatureTransform
from storage.volume import create_array, open_array


def _band_pass(config: FeaturesConfig) -> FeatureTransform:
    return partial(normalise, config=config)


KINDS: dict[str, Callable[[FeaturesConfig], FeatureTransform]] = {"bandpass": _band_pass}
"""What makes the features, by `features.kind`; a learned transform is one more entry."""


def phases(run: Run) -> Iterator[Phase]:
    """Yield one phase a level, over the sections that can be aligned."""
    layout = run.config.volume
    for mip in run.config.match.mips:
        shape = run.shape_at(mip)
        create_array(
            run.uri,
            f"features/{mip}",
            shape=shape,
            chunk=(1, layout.section_chunk_px, layout.section_chunk_px),
            shard=(1, layout.section_shard_px, layout.section_shard_px),
            dtype="float16",
            fill_value=0,
            dimension_names=("z", "y", "x"),
            attributes={"mip": mip},
        )
        units = [Section(z) for z in inputs.present(run)]
        work = partial(normalise_section, mip=mip)
        yield Phase(f"mip{mip}", units, work, reads_section, ("features",), local=True)


def reads_section(unit: Section, *, run_uri: str) -> list[Ref]:
    """Return the section and its valid part."""
    return [inputs.ingested(unit.z), inputs.masked(unit.z)]


def normalise_section(unit: Section, *, run_uri: str, mip: int) -> Record:
    """Write the feature image of one section at one level; 0 where nothing may be matched."""
    run = load(run_uri)
    image = inputs.section(run, unit.z, mip)
    transform = KINDS[run.config.features.kind](run.config.features)
    features = transform(image, inputs.valid(run, unit.z, mip))
    stored = features.astype(np.float16)
    digest = inputs.write_row(open_array(run_uri, f"features/{mip}"), unit.z, stored)
    return {
        "sha256": digest,
        "bytes_read": int(image.nbytes),
        "bytes_written": int(stored.nbytes),
    }
