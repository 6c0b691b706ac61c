"""TensorFlow: the Keras model itself, traced once by tf.function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tests.benchmarks.engine.peers.exchange import Network


def prepare(network: Network, variant: str, threads: int) -> tuple[str, Callable[[], Any], Any]:
    """Build the model anew, as the export did."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    from tests.benchmarks.engine.networks import find

    model = find(network.key).build()
    traced = tf.function(lambda images: model(images, training=False))
    x = tf.constant(np.moveaxis(network.array("input"), 1, -1))
    return tf.__version__, lambda: traced(x).numpy(), lambda y: np.moveaxis(y, -1, 1)
