"""The file of a model, and the errors that are about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from alignment.errors import ConfigError
from inference.errors import ConfigError as InferenceConfigError
from inference.errors import ModelError
from storage import store

LARGEST_MODEL_BYTES = 4 * 2**30


def model_bytes(uri: str) -> bytes:
    """Return a model's file.

    Raises
    ------
    MissingError
        If it does not exist.
    ConfigError
        If it is too large.
    """
    size = store.size(uri)
    if size > LARGEST_MODEL_BYTES:
        raise ConfigError(f"{uri} has {size} bytes; a model has at most {LARGEST_MODEL_BYTES}")
    return store.read_bytes(uri)


@contextmanager
def model_errors() -> Iterator[None]:
    """Let errors about a model, which `inference` raises, be errors of a setting."""
    try:
        yield
    except (ModelError, InferenceConfigError) as error:
        raise ConfigError(str(error)) from error
    except ImportError as error:
        raise ConfigError(f"the model cannot be loaded here: {error}") from error
