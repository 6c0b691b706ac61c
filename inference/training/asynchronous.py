"""Training on workers that wait for nobody: each applies what it has learned when it has.

The weights lie on a parameter server. A chief deals steps out; a worker takes its next batch, reads
the weights, and changes them by its gradients, while others do the same. What was learned is stale
by as many changes as there were in between, which the server counts. A worker that is lost gives
its step to another; the batch that it had is not seen then.

Workers read their own batches. TensorFlow runs a step's operations in the worker's process, and the
one that takes a batch calls the Python function that the process has registered under the same
token as the chief's.

Weights are read one by one and changed one by one, so a step may read some before and some after
another's change, and running means of batch normalisation are those of whoever wrote last: that is
what asynchronous training is.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from inference.errors import TrainingError
from inference.keras_on_tensorflow import tf
from inference.training.cluster import Place
from inference.training.learner import Learner
from inference.training.progress import Progress, Tell
from inference.training.record import Record, rate_of, read_checkpoint
from inference.training.samples import Samples, numbers_of, stream

Tensor = Any

TOKEN = "pyfunc_0"
"""Of the first Python function that a process registers with TensorFlow."""
_KINDS = (tf.float32, tf.int32, tf.int64)
"""Of images, labels, and the number of the first sample."""
POLL_S = 0.05
"""Between two looks of the chief at the server."""
SPARE = 64
"""Changes in an epoch beyond those that were dealt out: a worker that is lost may have made one
without anybody knowing, and another makes it again."""


def serve(samples: Samples | None, place: Place, folder: Path, workers: int) -> None:
    """Be a worker or a parameter server, until the process is ended.

    Parameters
    ----------
    samples : Samples, optional
        What a worker learns from.
    folder : Path
        From whose checkpoint the training goes on.
    """
    graph = tf.Graph()  # holds the registered function
    if samples is not None:
        found = read_checkpoint(folder, samples.config, "async", workers)
        done = found[1].step if found is not None else 0
        take = _taker(samples, place.index, workers, start=-(-done // workers))
        with graph.as_default():
            op = tf.numpy_function(take, [], _KINDS)[0].op
        token = op.get_attr("token").decode()
        if token != TOKEN:
            raise TrainingError(
                f"another part of this process has registered functions with TensorFlow before "
                f"(token {token}, expected {TOKEN}); start workers as processes of their own"
            )
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    _server = tf.distribute.Server(
        resolver.cluster_spec(), job_name=place.role, task_index=place.index, protocol="grpc"
    )
    while True:  # `join` would hold signals back
        time.sleep(3600)


def _taker(samples: Samples, worker: int, workers: int, *, start: int) -> Callable[[], Any]:
    """Return the function that gives a worker's next batch, and the number of its first sample."""
    batches = enumerate(stream(samples, worker=worker, workers=workers, start=start), start)
    lock = threading.Lock()

    def take() -> tuple[Any, Any, Any]:
        with lock:  # two steps at once, if the chief has given one up for lost
            step, (images, labels) = next(batches)
        number = numbers_of(step, worker, workers, samples.config.batch)[0]
        return images, labels, np.int64(number)

    return take


def train_apart(
    samples: Samples, folder: Path, workers: int, *, tell: Tell = lambda _: None
) -> Progress:
    """Train as the chief, to the end, from the last checkpoint in `folder` if there is one.

    Raises
    ------
    TrainingError
        If a checkpoint was made with other settings, or the loss is no number any more.
    """
    # A connection that is lost must fail at once, so that the step is given to another worker.
    os.environ.setdefault("GRPC_FAIL_FAST", "use_caller")
    resolver = tf.distribute.cluster_resolver.TFConfigClusterResolver()
    strategy = tf.distribute.ParameterServerStrategy(resolver)
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    learner = Learner(samples.config, strategy, synchronised=False)
    record = Record(learner, samples, folder, "async", workers)
    progress = record.begin()
    tell(progress)
    apart = _Apart(learner, samples)
    while not progress.has_ended:
        rate = tf.constant(rate_of(samples.config, progress.epoch), tf.float32)
        apart.begin_epoch()
        for _ in range(samples.config.steps_per_epoch):
            coordinator.schedule(apart.step, args=(rate,))
        noted, is_done = 0, False
        while not is_done:
            is_done = coordinator.done()  # raises what a step has raised
            changes = apart.changes(is_done=is_done)
            for number, (loss, accuracy, stale) in enumerate(changes[noted:], noted):
                record.step(progress.step + number, loss, accuracy, stale)
            noted = len(changes)
            time.sleep(0 if is_done else POLL_S)
        progress = record.end_epoch(samples=noted * samples.config.batch)
        tell(progress)
    return progress


def taken(counter: Any) -> Tensor:
    """Add 1 to a variable of int64, and return what it was: no two calls get the same.

    To add and then to read, as `assign_add` does, is not one operation: others come in between.
    """
    return tf.raw_ops.ResourceCountUpTo(resource=counter.handle, limit=2**62, T=tf.int64)


class _Apart:
    """A learner's step on one worker."""

    def __init__(self, learner: Learner, samples: Samples) -> None:
        self.learner = learner
        config = samples.config
        first = 1 if config.network.architecture == "unet" else 0  # images have no z
        seen, made = config.window_px[first:], config.patch_px[first:]
        self._shapes = (config.batch, *seen, 1), (config.batch, *made)
        # What is returned would lie on the worker, and be lost with it.
        with learner.strategy.scope():
            rows = np.zeros((config.steps_per_epoch + SPARE, 3), np.float32)
            self._told = tf.Variable(rows, trainable=False, name="told")
            self._first = tf.Variable(0, trainable=False, dtype=tf.int64, name="first_change")
        self.step = tf.function(self._one, autograph=False)

    def begin_epoch(self) -> None:
        """Forget what the server was told; no step is in flight now."""
        self._told.assign(np.full(self._told.shape, np.nan, np.float32))
        self._first.assign(self.learner.step.read_value())

    def changes(self, *, is_done: bool) -> list[tuple[float, float, int]]:
        """Return loss, accuracy and staleness of the changes of this epoch, in their order.

        Up to the first that the server was not told of; of all others if no more will be told.
        """
        rows = np.asarray(self._told.read_value())[: int(self.learner.step - self._first)]
        is_told = np.isfinite(rows[:, 2])
        told = rows[is_told] if is_done else rows[: np.append(is_told, False).argmin()]
        return [(float(loss), float(accuracy), int(stale)) for loss, accuracy, stale in told]

    def _one(self, rate: Tensor) -> None:
        """Take a step, and tell the server of it."""
        learner = self.learner
        images, labels, number = tf.raw_ops.PyFunc(input=[], token=TOKEN, Tout=_KINDS)
        for tensor, shape in zip((images, labels), self._shapes, strict=True):
            tensor.set_shape(shape)
        with tf.control_dependencies([images]):
            before = learner.step.read_value()
        with tf.control_dependencies([before]):
            weights, means = learner.read()
        gradients, renewed, loss, accuracy = learner.gradients(
            weights, means, images, labels, number
        )
        with tf.control_dependencies(gradients):
            change = taken(learner.step) + 1
        row = tf.minimum(change - 1 - self._first, self._told.shape[0] - 1)
        stale = tf.cast(change - 1 - before, tf.float32)
        self._told.scatter_nd_update([[row]], [tf.stack([loss, accuracy, stale])])
        groups = zip(learner.weights, learner.first, learner.second, gradients, strict=True)
        for weight, first, second, gradient in groups:
            learner.descend((weight, first, second), gradient, rate, change)
        for mean, value in zip(learner.means, renewed, strict=True):
            mean.assign(value)
