"""What is learned: weights and Adam's moments under a strategy, and one step of learning.

A Keras model is only the recipe here. Its weights are TensorFlow's variables, made in the scope of
the strategy, and the model computes with the values that it is given (`stateless_call`): so the
same few lines run in one process, in replicas that share their gradients, and on workers whose
weights lie on a parameter server. Adam is TensorFlow's own operation, in all modes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference import rsunet, unet
from inference.errors import TrainingError
from inference.keras_on_tensorflow import keras, tf
from inference.training.config import RSUNetConfig, TrainConfig, UNetConfig
from inference.training.losses import accuracy_of, losses_of

Tensor = Any
Arrays = dict[str, NDArray[Any]]

_BETA = (0.9, 0.999)
_EPSILON = 1e-8


def build_network(
    config: UNetConfig | RSUNetConfig,
    *,
    seed: int = 0,
    logits: bool = False,
    synchronised: bool = False,
) -> keras.Model:
    """Return the Keras model of a configuration; see `inference.unet`, `inference.rsunet`."""
    if isinstance(config, UNetConfig):
        return unet.build(config, seed=seed, logits=logits, synchronised=synchronised)
    return rsunet.build(config, seed=seed, logits=logits, synchronised=synchronised)


class Learner:
    """Variables of a training, and what changes them.

    Parameters
    ----------
    strategy : tf.distribute.Strategy
        In whose scope the variables are made.
    synchronised : bool
        Whether replicas wait for each other; batch normalisation then sees all their batches.
    """

    def __init__(self, config: TrainConfig, strategy: Any, *, synchronised: bool) -> None:
        self.config = config
        self.strategy = strategy
        self.model = build_network(
            config.network, seed=config.seed, logits=True, synchronised=synchronised
        )
        learned, others = self.model.trainable_variables, self.model.non_trainable_variables
        self._drops = [k for k, v in enumerate(others) if "seed_generator" in v.path]
        """Which of the other variables say what is dropped; they do not change by training."""
        self._seeds = [np.asarray(others[k])[0] for k in self._drops]
        with strategy.scope():
            self.weights = [tf.Variable(v.value, name="weight") for v in learned]
            self.means = [
                tf.Variable(v.value, trainable=False, name="mean")
                for k, v in enumerate(others)
                if k not in self._drops
            ]
            zeros = [np.zeros(v.shape, np.float32) for v in learned]
            self.first = [tf.Variable(z, trainable=False, name="first") for z in zeros]
            self.second = [tf.Variable(z, trainable=False, name="second") for z in zeros]
            self.step = tf.Variable(0, trainable=False, dtype=tf.int64, name="step")
        self._predict = tf.function(lambda images: self.model(images, training=False))

    # ---------------------------------------------------------------- a step

    def read(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return the values of weights and running means, as they are now."""
        weights, means = self.weights, self.means
        return [v.read_value() for v in weights], [v.read_value() for v in means]

    def gradients(
        self,
        weights: Sequence[Tensor],
        means: Sequence[Tensor],
        images: Tensor,
        labels: Tensor,
        number: Tensor,
    ) -> tuple[list[Tensor], list[Tensor], Tensor, Tensor]:
        """Return gradients of the mean loss, new running means, the loss, and the accuracy.

        Parameters
        ----------
        number : tensor
            Of the first sample; decides what is dropped.
        """
        others = list(means)
        for k, seed in zip(self._drops, self._seeds, strict=True):
            state = tf.stack([tf.constant(seed, tf.uint32), tf.cast(number, tf.uint32)])
            others.insert(k, state)
        with tf.GradientTape() as tape:
            tape.watch(weights)
            scores, others = self.model.stateless_call(weights, others, images, training=True)
            loss = tf.reduce_mean(losses_of(scores, labels, self.config))
        found = tape.gradient(loss, weights)
        renewed = [each for k, each in enumerate(others) if k not in self._drops]
        return found, renewed, loss, accuracy_of(scores, labels)

    def descend(
        self, variables: tuple[Any, Any, Any], gradient: Tensor, rate: Tensor, number: Tensor
    ) -> None:
        """Change one weight and its moments by Adam's rule, where they lie.

        Parameters
        ----------
        number : tensor
            Of this change of the weights, from 1.
        """
        weight, first, second = variables
        power = tf.cast(number, tf.float32)
        tf.raw_ops.ResourceApplyAdam(
            var=weight.handle, m=first.handle, v=second.handle,
            beta1_power=_BETA[0] ** power, beta2_power=_BETA[1] ** power, lr=rate,
            beta1=_BETA[0], beta2=_BETA[1], epsilon=_EPSILON, grad=gradient, use_locking=True,
        )  # fmt: skip

    # ---------------------------------------------------------------- what is kept

    def state(self) -> Arrays:
        """Return all variables as arrays."""
        return {name: self._local(variable) for name, variable in self._named().items()}

    def restore(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Set all variables as `state` gave them.

        Raises
        ------
        TrainingError
            If they are of another network.
        """
        for name, variable in self._named().items():
            if name not in state or state[name].shape != tuple(variable.shape):
                raise TrainingError(
                    f"the checkpoint has no {name} of shape {tuple(variable.shape)}; it was made "
                    "by another version: train into another folder"
                )
            variable.assign(state[name])

    def _named(self) -> dict[str, Any]:
        kinds = {name: getattr(self, name) for name in ("weights", "means", "first", "second")}
        named = {f"{kind}/{k:03d}": v for kind, some in kinds.items() for k, v in enumerate(some)}
        return {**named, "step": self.step}

    def _local(self, variable: Any) -> NDArray[Any]:
        return np.asarray(self.strategy.experimental_local_results(variable)[0])

    # ---------------------------------------------------------------- what it has learned

    def predict(self, images: NDArray[np.float32]) -> Tensor:
        """Return class scores by the weights of the last `take_up`."""
        return self._predict(tf.constant(images))

    def take_up(self) -> None:
        """Give the model the weights as they are now."""
        means = iter(self.means)
        others = self.model.non_trainable_variables
        for variable, source in zip(self.model.trainable_variables, self.weights, strict=True):
            variable.assign(self._local(source))
        for k, variable in enumerate(others):
            if k not in self._drops:
                variable.assign(self._local(next(means)))

    def network(self) -> keras.Model:
        """Return the network with its last softmax or sigmoid, and the weights of `take_up`."""
        model = build_network(self.config.network)
        model.set_weights(self.model.get_weights())
        return model
