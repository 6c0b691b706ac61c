"""Keras and TensorFlow, if they are installed and belong together: all others import them here."""

from __future__ import annotations

import os

from inference.errors import BackendError

try:
    import tensorflow as tf
except ImportError as error:
    raise BackendError(
        "networks are trained, and run by Keras, with TensorFlow: pip install 'petalign[train]'"
    ) from error

import keras

if keras.backend.backend() != "tensorflow":
    raise BackendError(
        f"Keras must compute by TensorFlow here, and its backend is {keras.backend.backend()!r}; "
        f"set KERAS_BACKEND=tensorflow (now {os.environ.get('KERAS_BACKEND')!r}) or correct "
        "~/.keras/keras.json"
    )

__all__ = ["keras", "tf"]
