"""A prediction: one network over one published version of an aligned volume, frozen.

It is a run like those of `alignment.runs`, below a volume of its own, with another ``run.json``.
Its first unit is done as it is prepared: the model's file is copied into the run, and what it asks
of the patches is recorded. So a worker anywhere has the model, and it never changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from alignment.driving.kinds import PREDICTION, kind_of
from alignment.errors import ConfigError, DataError
from alignment.predicting.config import PredictConfig, parse_predict_config
from alignment.predicting.figures import Figures, check_limits, figures
from alignment.predicting.layout import Layout
from alignment.predicting.models import model_bytes, model_errors
from alignment.predicting.networks import laid_out
from alignment.runs import check_kept, definition
from inference.network import ZYX
from storage.commit import records
from storage.commit.keys import run_key
from storage.commit.trust import trust
from storage.errors import MissingError
from storage.journal import digest_of
from storage.ledger import StageState, read_state, touch, write_state
from storage.ome import read_level
from storage.provenance import module_code, provenance
from storage.publish import find_version, read_pointer
from storage.store import create_json, join, normalise_uri
from storage.volume import Array, open_array

STAGE = "predict"
"""The only stage of a prediction."""
MODEL_PHASE, SHARDS = "model", "shards"


@dataclass(frozen=True)
class Prediction:
    """What every unit knows; read from ``run.json``, which never changes."""

    uri: str
    volume_uri: str
    key: str
    source_run_uri: str
    source_root: str
    shape: ZYX
    """(z, y, x) of the aligned volume at `config.patches.mip`."""
    resolution_nm: tuple[float, float, float]
    first_nm: tuple[float, float, float]
    """Centre of the first voxel."""
    model_uri: str
    model_digest: str
    config: PredictConfig
    provenance: Mapping[str, Any]

    @property
    def source(self) -> Array:
        """The aligned volume that the network sees, held to what it was published with."""
        return _source(self.source_run_uri, self.source_root, self.config.patches.mip)[0]


@dataclass(frozen=True)
class Prepared:
    """A prediction that is ready to be computed."""

    run_uri: str
    """Empty where it was only foreseen."""
    layout: Layout
    figures: Figures


def prepare(
    source: str,
    model: str,
    volume: str,
    config: Mapping[str, Any] | None = None,
    *,
    at: int | str | None = None,
) -> Prepared:
    """Freeze a prediction below `volume`; the same inputs give the same run.

    Parameters
    ----------
    source, model, volume : str
        URIs or paths: an aligned volume, a network's file, and where the prediction shall be.
    config : mapping, optional
        Plain nested settings; missing ones take their defaults.
    at : int or str, optional
        A version of the source instead of the present one, as in `storage.open_aligned`.

    Raises
    ------
    ConfigError
        If a setting is wrong, the network cannot be used, a block would need more memory than a
        worker may take, or `volume` holds something else.
    MissingError
        If the source has no such version, or there is no model.
    ConflictError
        If this very run is being deleted.
    """
    volume_uri = normalise_uri(volume)
    frozen = define(source, model, config, at=at)
    _check_place(volume_uri, frozen["source"]["uri"])
    key = run_key(frozen)
    run_uri = join(volume_uri, "runs", key)
    has_model = bool(records.recorded(run_uri, STAGE, MODEL_PHASE))
    layout = layout_of(run_uri) if has_model else _laid_out(frozen)
    found = _checked(layout, frozen)
    touch(run_uri)
    check_kept(volume_uri, key)
    create_json(join(run_uri, "run.json"), {"key": key, "volume_uri": volume_uri, **frozen})
    if not has_model:
        _copy_model(load(run_uri))
    pointer = read_pointer(volume_uri)
    if pointer and pointer.run != key and read_state(run_uri, STAGE).status == "done":
        # It was published and another run since: whoever asks for it again wants it back.
        write_state(run_uri, StageState(STAGE))
    return Prepared(run_uri, layout, found)


def prepare_told(
    source: str, model: str, volume: str, config: Mapping[str, Any], at: int | str | None
) -> dict[str, Any]:
    """Return what `prepare` does as JSON values: for Airflow, which imports none of this."""
    prepared = prepare(source, model, volume, config, at=at)
    return {
        "run_uri": prepared.run_uri,
        "figures": prepared.figures.as_dict(),
        "layout": prepared.layout.as_dict(),
        "by": prepared.layout.by,
    }


def foresee(
    source: str, model: str, config: Mapping[str, Any] | None, *, at: int | str | None = None
) -> Prepared:
    """Return what a prediction would take; writes nothing. Errors as `prepare`."""
    frozen = define(source, model, config, at=at)
    layout = _laid_out(frozen)
    return Prepared("", layout, _checked(layout, frozen))


def _laid_out(frozen: Mapping[str, Any]) -> Layout:
    data = model_bytes(frozen["model"]["uri"])
    z, y, x = frozen["shape"]
    with model_errors():
        return laid_out(data, (z, y, x), parse_predict_config(frozen["config"]))


def _checked(layout: Layout, frozen: Mapping[str, Any]) -> Figures:
    config = parse_predict_config(frozen["config"])
    found = figures(layout, config)
    check_limits(found, layout, config)
    return found


def define(
    source: str, model: str, config: Mapping[str, Any] | None, *, at: int | str | None = None
) -> dict[str, Any]:
    """Return what a prediction freezes, as in its run.json; writes nothing. Errors as `prepare`."""
    settings = parse_predict_config(config)
    source_uri, model_uri = normalise_uri(source), normalise_uri(model)
    version = read_pointer(source_uri) if at is None else find_version(source_uri, at)
    if version is None:
        raise MissingError(
            f"{source_uri} has no published version; expected an aligned volume, as `petalign "
            "align` makes it"
        )
    run_uri = join(source_uri, "runs", version.run)
    array, scale, first = _source(run_uri, version.root, settings.patches.mip)
    return {
        "kind": PREDICTION,
        # Not the epoch: the same run published again is the same source.
        "source": {"uri": source_uri, "run": version.run, "root": version.root},
        "shape": list(array.shape),
        "resolution_nm": list(scale),
        "first_nm": list(first),
        "model": {"uri": model_uri, "digest": digest_of(model_bytes(model_uri))},
        "config": settings.model_dump(mode="json"),
        "stages": {STAGE: module_code(f"alignment.stages.{STAGE}")},
        "provenance": provenance(),
    }


def _check_place(volume_uri: str, source_uri: str) -> None:
    """Refuse a place where something else is published."""
    pointer = read_pointer(volume_uri)
    taken = pointer and kind_of(join(volume_uri, "runs", pointer.run)) != PREDICTION
    if taken or volume_uri == source_uri:
        raise ConfigError(
            f"{volume_uri} holds an aligned volume; give a prediction a place of its own"
        )


def _copy_model(run: Prediction) -> None:
    from alignment.stages import predict  # the stage imports this module
    from alignment.stages.work import Work

    phase = predict.model_phase()
    for unit in phase.units:
        Work.of(STAGE, phase, run)(unit)


@lru_cache(maxsize=8)
def layout_of(run_uri: str) -> Layout:
    """Return how a prediction is cut; cached, because it never changes."""
    return Layout.of(records.read_commit(run_uri, STAGE, MODEL_PHASE, "all").value)


@lru_cache(maxsize=8)
def load(run_uri: str) -> Prediction:
    """Read a prediction; cached, because ``run.json`` is immutable.

    Raises
    ------
    MissingError
        If there is no run at `run_uri`.
    DataError
        If it is a run of another kind.
    """
    frozen = definition(run_uri)
    if frozen.get("kind") != PREDICTION:
        raise DataError(f"{run_uri} is no prediction, but a run that aligns {frozen['source_uri']}")
    volume_uri, _, key = run_uri.rpartition("/runs/")
    source, model = frozen["source"], frozen["model"]
    z, y, x = frozen["shape"]
    return Prediction(
        uri=run_uri,
        volume_uri=volume_uri,
        key=key,
        source_run_uri=join(source["uri"], "runs", source["run"]),
        source_root=source["root"],
        shape=(z, y, x),
        resolution_nm=_three(frozen["resolution_nm"]),
        first_nm=_three(frozen["first_nm"]),
        model_uri=model["uri"],
        model_digest=model["digest"],
        config=parse_predict_config(frozen["config"]),
        provenance=frozen["provenance"],
    )


def _three(values: Any) -> tuple[float, float, float]:
    z, y, x = values
    return z, y, x


@lru_cache(maxsize=8)
def _source(
    run_uri: str, root: str, mip: int
) -> tuple[Array, tuple[float, ...], tuple[float, ...]]:
    """Return a level of an aligned volume, its voxel size and the place of its first voxel, nm."""
    held = trust(run_uri, root)
    path, scale, first = read_level(join(run_uri, "aligned"), mip, held=held)
    return open_array(run_uri, f"aligned/{path}", held=held), scale, first
