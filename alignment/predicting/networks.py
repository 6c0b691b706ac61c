"""Which backend computes a network: chosen once, when a run is prepared, and recorded."""

from __future__ import annotations

from dataclasses import replace

from alignment.predicting.config import PredictConfig
from alignment.predicting.layout import Layout, lay_out
from inference.backends.files import load_network, on_engine
from inference.errors import BackendError, ModelError
from inference.network import ZYX, PatchNetwork


def laid_out(data: bytes, shape: ZYX, config: PredictConfig) -> Layout:
    """Return the layout of a prediction by a model's file; errors as `lay_out`.

    If the backend is left open, it is the engine, or else Keras and the layout says why.
    """
    read, wanted = load_network(data), config.network
    by_engine = on_engine(read, isa=wanted.isa, threads=config.limits.threads)
    chosen: PatchNetwork = read if wanted.backend == "keras" else by_engine
    try:
        return lay_out(shape, config, chosen, model_bytes=len(data))
    except (ModelError, BackendError) as error:
        if wanted.backend == "keras":
            raise
        # What is wrong with the patches, and not with the engine, is raised again here.
        layout = lay_out(shape, config, read, model_bytes=len(data))
        if wanted.backend == "engine":
            raise ModelError(f"{error}: set network.backend=keras, or auto") from error
        return replace(layout, why=str(error).partition("; ")[0])
