"""Networks from their files, and what runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from inference.errors import ModelError
from inference.network import ZYX, Tile

if TYPE_CHECKING:
    from inference.backends.engine_file import EngineNetwork
    from inference.backends.keras_file import KerasNetwork


def load_network(data: bytes) -> KerasNetwork:
    """Return the network that a model's file holds, run by Keras.

    Raises
    ------
    ModelError
        If it is no model that is known here, or one that would run code of its own.
    BackendError
        If what would run it is not installed.
    """
    if not is_archive(data):
        raise ModelError(
            f"the model's file begins with {data[:4]!r}, and Keras runs archives of its own, as "
            "model.save('name.keras') writes them; set network.backend=engine for ONNX"
        )
    from inference.backends.keras_file import KerasNetwork  # TensorFlow takes seconds to import

    return KerasNetwork(data)


def on_engine(
    data: bytes,
    *,
    isa: str = "auto",
    tile_px: Tile = 4,
    threads: int = 1,
    shrink: ZYX | None = None,
) -> EngineNetwork:
    """Return the network that a model's file holds, run by the fused engine; errors as above.

    Parameters are those of `inference.backends.engine_file.EngineNetwork`.
    Whether the engine knows its layers is said when the first size of patches is.
    """
    from inference.backends.engine_file import EngineNetwork

    return EngineNetwork(data, isa=isa, tile_px=tile_px, threads=threads, shrink=shrink)


def is_archive(data: bytes) -> bool:
    """Tell whether a file may be one of Keras."""
    return data.startswith(b"PK\x03\x04")
