"""Training in one process, or in several that wait for each other at each step.

In a step each replica finds the gradients of its own batch; their mean changes all replicas'
weights alike. With losses of single images that is the same as one process with all batches at
once, but for rounding. Batch normalisation sees all batches too, and its running means are those
of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from inference.errors import ConfigError
from inference.keras_on_tensorflow import tf
from inference.training.config import Mode
from inference.training.learner import Learner
from inference.training.progress import Progress, Tell
from inference.training.record import Record, rate_of, read_checkpoint
from inference.training.samples import Batch, Samples, numbers_of, stream

Tensor = Any


def train_in_step(
    samples: Samples,
    folder: Path,
    *,
    mode: Mode,
    workers: int = 1,
    rank: int = 0,
    tell: Tell = lambda _: None,
) -> Progress | None:
    """Train to the end, from the last checkpoint in `folder` if there is one.

    In mode "sync" all processes of the cluster (`TF_CONFIG`) call this, and go on from the same
    folder; the first one writes and the others return None.

    Parameters
    ----------
    mode : {"local", "mirrored", "sync"}
        One replica; one for each of `workers` devices of this process; one a process.
    rank : int
        Of this process.

    Raises
    ------
    TrainingError
        If a checkpoint was made with other settings, or the loss is no number any more.
    """
    config = samples.config
    strategy = make_strategy(mode, workers)
    tf.config.experimental.enable_op_determinism()
    learner = Learner(config, strategy, synchronised=strategy.num_replicas_in_sync > 1)
    together = _Together(learner)
    writes = rank == 0
    record = Record(learner, samples, folder, mode, workers) if writes else None
    if record is not None:
        progress = record.begin()
        tell(progress)
        done, has_ended = progress.step, progress.has_ended
    else:
        # Whoever writes has not begun to change what is there: that waits for all of us.
        found = read_checkpoint(folder, config, mode, workers)
        done, has_ended = 0, False
        if found is not None:
            learner.restore(found[0])
            done = found[1].step
    if together.any(has_ended):
        return record.progress if record is not None else None
    ranks = range(workers) if mode == "mirrored" else [rank]
    streams = [stream(samples, worker=r, workers=workers, start=done) for r in ranks]
    while not has_ended:
        epoch, first = done // config.steps_per_epoch, done
        for step in range(first, first + config.steps_per_epoch):
            batches = {r: next(each) for r, each in zip(ranks, streams, strict=True)}
            numbers = {r: numbers_of(step, r, workers, config.batch)[0] for r in ranks}
            loss, accuracy = together.step(batches, numbers, rate_of(config, epoch))
            if record is not None:
                record.step(step, loss, accuracy)
        done += config.steps_per_epoch
        if record is not None:
            progress = record.end_epoch(samples=config.steps_per_epoch * config.batch * workers)
            tell(progress)
            has_ended = progress.has_ended
        # All wait here until the checkpoint is written: from then on it is what all go on from.
        has_ended = together.any(has_ended)
    for each in streams:
        each.close()
    return record.progress if record is not None else None


def make_strategy(mode: Mode, workers: int) -> Any:
    """Return TensorFlow's strategy for a mode.

    Raises
    ------
    ConfigError
        If there are fewer devices than workers.
    """
    if mode == "sync":
        return tf.distribute.MultiWorkerMirroredStrategy()
    if mode == "local":
        gpus = tf.config.list_physical_devices("GPU")
        return tf.distribute.OneDeviceStrategy("GPU:0" if gpus else "CPU:0")
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        if len(gpus) < workers:
            raise ConfigError(
                f"{workers} workers for {len(gpus)} GPUs; lower --workers, or choose --mode sync"
            )
        return tf.distribute.MirroredStrategy([f"GPU:{k}" for k in range(workers)])
    (processor, *_) = tf.config.list_physical_devices("CPU")
    parts = [tf.config.LogicalDeviceConfiguration() for _ in range(workers)]
    tf.config.set_logical_device_configuration(processor, parts)
    return tf.distribute.MirroredStrategy(
        [f"CPU:{k}" for k in range(workers)],
        cross_device_ops=tf.distribute.ReductionToOneDevice(),
    )


class _Together:
    """A learner's step in all replicas."""

    def __init__(self, learner: Learner) -> None:
        self.learner, self.strategy = learner, learner.strategy
        self._step = tf.function(self._all, reduce_retracing=True, autograph=False)
        self._any = tf.function(self._agreed, autograph=False)

    def step(
        self, batches: dict[int, Batch], numbers: dict[int, int], rate: float
    ) -> tuple[float, float]:
        """Take one step; return loss and accuracy, the means of all replicas."""

        def given(k: int, dtype: str) -> Any:
            def of(context: Any) -> Tensor:
                rank = int(context.replica_id_in_sync_group)
                values: Sequence[Any] = (*batches[rank], numbers[rank])
                return tf.constant(values[k], dtype)

            return self.strategy.experimental_distribute_values_from_function(of)

        kinds = ("float32", "int32", "int64")
        found = self._step(*map(given, range(3), kinds), tf.constant(rate, tf.float32))
        loss, accuracy = (self._first(each) for each in found)
        return loss, accuracy

    def any(self, is_so: bool) -> bool:
        """Return whether a process says so; all must ask, and wait for all."""

        def of(_context: Any) -> Tensor:
            return tf.constant(float(is_so))

        given = self.strategy.experimental_distribute_values_from_function(of)
        return self._first(self._any(given)) > 0

    def _first(self, value: Any) -> float:
        return float(np.asarray(self.strategy.experimental_local_results(value)[0]))

    def _agreed(self, says: Tensor) -> Tensor:
        def sum_of_all(x: Tensor) -> Tensor:
            # Copied, so that it lies on the replica's own device.
            return tf.distribute.get_replica_context().all_reduce("SUM", tf.identity(x))

        return self.strategy.run(sum_of_all, args=(says,))

    def _all(self, images: Tensor, labels: Tensor, number: Tensor, rate: Tensor) -> Any:
        return self.strategy.run(self._one, args=(images, labels, number, rate))

    def _one(self, images: Tensor, labels: Tensor, number: Tensor, rate: Tensor) -> Any:
        """Take a step as one replica of all."""
        learner = self.learner
        found = learner.gradients(*learner.read(), images, labels, number)
        context = tf.distribute.get_replica_context()
        gradients, means, loss, accuracy = context.all_reduce("MEAN", found)
        context.merge_call(self._change, args=(gradients, means, rate))
        return loss, accuracy

    def _change(self, strategy: Any, gradients: list[Any], means: list[Any], rate: Tensor) -> None:
        """Change what all replicas have, in each of them."""
        learner, update = self.learner, strategy.extended.update
        number = learner.step.read_value() + 1

        def descend(weight: Any, first: Any, second: Any, gradient: Tensor, rate: Any) -> None:
            learner.descend((weight, first, second), gradient, rate, number)

        groups = zip(learner.weights, learner.first, learner.second, gradients, strict=True)
        for weight, *others in groups:
            update(weight, descend, args=(*others, rate), group=False)
        for mean, value in zip(learner.means, means, strict=True):
            update(mean, lambda variable, new: variable.assign(new), args=(value,), group=False)
        update(learner.step, lambda variable: variable.assign_add(1), group=False)
