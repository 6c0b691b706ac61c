"""Networks from their files, and what runs them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inference.errors import ModelError

if TYPE_CHECKING:
    from inference.backends.engine_file import EngineNetwork
    from inference.backends.keras_file import KerasNetwork


def load_model(data: bytes) -> Any:
    """Return the Keras model that a file holds, whatever it maps to what; errors as below."""
    _check_kind(data)
    from inference.backends.keras_file import read_model  # TensorFlow takes seconds to import

    return read_model(data)


def load_network(data: bytes) -> KerasNetwork:
    """Return the network that a model's file holds, run by Keras.

    Raises
    ------
    ModelError
        If it is no model that is known here, or one that would run code of its own.
    BackendError
        If what would run it is not installed.
    """
    _check_kind(data)
    from inference.backends.keras_file import KerasNetwork

    return KerasNetwork(data)


def on_engine(network: KerasNetwork, *, isa: str = "auto", threads: int = 1) -> EngineNetwork:
    """Return the same network, run by the fused engine.

    Whether the engine knows its layers is said when it is compiled, for the first patch.
    """
    from inference.backends.engine_file import EngineNetwork

    return EngineNetwork(network, isa=isa, threads=threads)


def _check_kind(data: bytes) -> None:
    if not data.startswith(b"PK\x03\x04"):
        raise ModelError(
            f"the model's file begins with {data[:4]!r}; expected a Keras 3 archive, as "
            "model.save('name.keras') writes it"
        )
