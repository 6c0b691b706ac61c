"""Networks as their files describe them, before the size of their input is chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from inference.engine import from_keras
from inference.engine.graph import Graph
from inference.engine.keras_model import KerasModel
from inference.engine.shapes import InputShapes
from inference.errors import ModelError

Source = KerasModel


def read(file: bytes | Path | str) -> Source:
    """Return the network that a file holds; neither Keras nor TensorFlow is needed.

    Raises
    ------
    ModelError
        If it is no model that is known here, or one that would run code of its own.
    BackendError
        If what reads such files is not installed.
    """
    data = file if isinstance(file, bytes) else Path(file).read_bytes()
    if data.startswith(b"PK\x03\x04"):
        from inference.engine import from_archive

        return from_archive.read(data)
    raise ModelError(
        f"the model's file begins with {data[:4]!r}; expected a Keras 3 archive, as "
        "model.save('name.keras') writes it"
    )


def graph_of(model: Any, input_shape: InputShapes) -> Graph:
    """Return the graph of a source, or of a live Keras model, for inputs of a size."""
    return from_keras.read(model, input_shape)
