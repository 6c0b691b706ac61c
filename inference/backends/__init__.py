"""What runs networks, a file for each library; `load_network` finds the one for a model's file."""

from __future__ import annotations

from inference.network import ModelError, Network

SUFFIX = ".keras"
"""Of the files that can be read so far; the first bytes decide, not the name."""


def load_network(data: bytes) -> Network:
    """Return the network that a model's file holds.

    Raises
    ------
    ModelError
        If it is no model that is known here, or one that would run code of its own.
    ImportError
        If what would run it is not installed.
    """
    if not data.startswith(b"PK\x03\x04"):
        raise ModelError(
            f"the model's file begins with {data[:4]!r}; expected a Keras 3 archive, as "
            "model.save('name.keras') writes it"
        )
    from inference.backends.keras import KerasNetwork  # TensorFlow takes seconds to import

    return KerasNetwork(data)
