"""Which backend computes a network: chosen once, when a run is prepared, and recorded."""

from __future__ import annotations

from dataclasses import replace

from alignment.predicting.config import PredictConfig
from alignment.predicting.layout import Layout, lay_out
from inference.backends.files import is_archive, load_network, on_engine
from inference.errors import BackendError, ModelError, UnsupportedError
from inference.network import ZYX


def laid_out(data: bytes, shape: ZYX, config: PredictConfig) -> Layout:
    """Return the layout of a prediction by a model's file; errors as `lay_out`.

    If the backend is left open, it is the engine, or else Keras and the layout says why. Keras is
    imported only if it may be what computes.
    """
    wanted, patches = config.network, config.patches
    if wanted.backend == "keras":
        return _by_keras(data, shape, config)
    try:
        network = on_engine(
            data,
            isa=wanted.isa,
            tile_px=wanted.tile_px,
            threads=config.limits.threads,
            shrink=patches.margin_px if patches.join == "valid" else None,
        )
        return lay_out(shape, config, network, model_bytes=len(data))
    except (UnsupportedError, BackendError) as error:
        if not is_archive(data):
            raise  # nobody else runs it
        if wanted.backend == "engine":
            raise ModelError(f"{error}: set network.backend=keras, or auto") from error
        why = str(error).partition("; ")[0]
        try:
            return replace(_by_keras(data, shape, config), why=why)
        except BackendError as missing:
            raise BackendError(f"{why}; and Keras cannot run it: {missing}") from error


def _by_keras(data: bytes, shape: ZYX, config: PredictConfig) -> Layout:
    return lay_out(shape, config, load_network(data), model_bytes=len(data))
