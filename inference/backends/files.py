"""Networks from their files: `load_network` finds what runs one."""

from __future__ import annotations

from inference.errors import ModelError
from inference.network import PatchNetwork


def load_network(data: bytes) -> PatchNetwork:
    """Return the network that a model's file holds.

    Raises
    ------
    ModelError
        If it is no model that is known here, or one that would run code of its own.
    BackendError
        If what would run it is not installed.
    """
    if not data.startswith(b"PK\x03\x04"):
        raise ModelError(
            f"the model's file begins with {data[:4]!r}; expected a Keras 3 archive, as "
            "model.save('name.keras') writes it"
        )
    from inference.backends.keras_file import KerasNetwork  # TensorFlow takes seconds to import

    return KerasNetwork(data)
