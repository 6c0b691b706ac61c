"""Stage "features": images that are easier to match, at every level of matching."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial

import numpy as np

from alignment.attachments import feature_network
from alignment.errors import ConfigError
from alignment.features import normalise
from alignment.runs import Run, load
from alignment.stages import inputs
from alignment.stages.units import Phase, Record, Ref, Section
from inference.errors import BackendError
from inference.model import FeatureTransform
from inference.transform import NetworkTransform, predictor_of
from storage.volume import create_array, open_array


def _band_pass(run: Run) -> FeatureTransform:
    return partial(normalise, config=run.config.features)


def _network(run: Run) -> FeatureTransform:
    return _loaded(run.config.features.model, run.attachments["features"])


@lru_cache(maxsize=1)
def _loaded(uri: str, sha256: str) -> FeatureTransform:
    """Compile a network once in a process."""
    network = feature_network(uri, sha256)
    try:
        return NetworkTransform(network, predictor_of("engine")(network))
    except BackendError as error:
        raise ConfigError(f"features.kind=nccnet runs by the engine: {error}") from None


KINDS: dict[str, Callable[[Run], FeatureTransform]] = {"bandpass": _band_pass, "nccnet": _network}
"""What makes the features, by `features.kind`."""


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


def reads_section(unit: Section, *, run_uri: str) -> list[Ref | str]:
    """Return the section and its valid part, and the network."""
    seen: list[Ref | str] = [inputs.ingested(unit.z), inputs.masked(unit.z)]
    network = load(run_uri).attachments.get("features")
    return seen if network is None else [*seen, f"network {network}"]


def normalise_section(unit: Section, *, run_uri: str, mip: int) -> Record:
    """Write the feature image of one section at one level; 0 where nothing may be matched."""
    run = load(run_uri)
    image = inputs.section(run, unit.z, mip)
    transform = KINDS[run.config.features.kind](run)
    features = transform(image, inputs.valid(run, unit.z, mip))
    stored = features.astype(np.float16)
    digest = inputs.write_row(open_array(run_uri, f"features/{mip}"), unit.z, stored)
    return {
        "sha256": digest,
        "bytes_read": int(image.nbytes),
        "bytes_written": int(stored.nbytes),
    }
