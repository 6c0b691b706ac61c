"""Train an NCCNet: the first peak of its correlograms shall stand out from the second.

The loss of a pair is P2 - P1, and the peak itself where a template is searched in another pair's
image; both in one step, since the features are the same. The coarser levels of the decoder are
trained likewise, each by its own correlogram. Nothing is said of where a match lies.

Weights, Adam's moments and the step are kept in checkpoints, and samples are functions of the step:
training that was killed ends with the weights of training that was not.

References
----------
.. [1] D. Buniatyan et al., "Deep Learning Improves Template Matching by Normalized Cross
   Correlation", arXiv:1705.08593, 2017.
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from inference.backends.by_keras import build_pyramid, set_weights, weights_of
from inference.config import NCCTrainingConfig
from inference.errors import TrainingError
from inference.matching_loss import matching_loss, peaks_of
from inference.model import Network
from inference.model_file import replace_file, write_model
from inference.pair_samples import Batch, PairPlace, ReadWindow, batches, held_out
from inference.training.events import write_events
from inference.training_files import CHECKPOINT, EVENTS, LOG, MODEL

Tensor = Any

SHOWN = ("loss", "r_delta", "false", "raw", "best", "learning_rate")
"""What TensorBoard draws."""


@dataclass(frozen=True)
class Progress:
    """How training stands, after a step."""

    step: int
    loss: float
    """Mean since the last look."""
    r_delta: float
    """Mean over the held-out pairs: the highest score where the template was cut, to within the
    slack, less the highest elsewhere."""
    false: float
    """Share of the held-out pairs whose highest score lies elsewhere."""
    raw: float
    """`r_delta` of the grey values themselves."""
    raw_false: float
    """`false` of the grey values themselves."""
    best: float
    best_step: int
    learning_rate: float
    has_ended: bool = False


Tell = Callable[[Progress], None]


def train(
    places: Sequence[PairPlace],
    held_out_places: Sequence[PairPlace],
    read: ReadWindow,
    config: NCCTrainingConfig,
    folder: Path,
    *,
    tell: Tell = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Progress:
    """Train to the end, from the last checkpoint in `folder` if there is one.

    Parameters
    ----------
    places, held_out_places : sequences of PairPlace
        What is trained on, and what decides which weights are best and when training ends.
    read : ReadWindow
        Where grey values come from; called from another thread.
    config : NCCTrainingConfig
        With which a checkpoint in `folder` must have been made.
    folder : Path
        Gets `CHECKPOINT`, `LOG` (one row a look, as CSV), `EVENTS` for TensorBoard, and the best
        network so far in `MODEL`.
    tell : callable
        Receives the progress after every look.
    stop : callable
        Asked after every step; training that is stopped goes on from its last checkpoint.

    Raises
    ------
    TrainingError
        If there are fewer pairs than a batch, a checkpoint of other settings, or the loss is no
        number any more.
    """
    for name, some in (("training", places), ("held-out", held_out_places)):
        if len(some) < config.batch:
            raise TrainingError(
                f"{len(some)} {name} pairs are fewer than batch={config.batch}; find more pairs"
            )
    tf.config.experimental.enable_op_determinism()
    folder.mkdir(parents=True, exist_ok=True)
    trainer = _Trainer(config, folder)
    progress = trainer.resume() or trainer.look(held_out_places, read, np.nan)
    tell(progress)
    if progress.has_ended:
        return progress
    losses: list[float] = []
    for batch in batches(places, read, config, start=progress.step):
        losses.append(trainer.step(batch, progress.step + len(losses)))
        if stop():
            break
        done = progress.step + len(losses)
        if done % config.check_every and done < config.steps:
            continue
        trainer.done = done
        progress = trainer.look(held_out_places, read, float(np.mean(losses)))
        tell(progress)
        losses.clear()
        if progress.has_ended:
            break
    return progress


def learning_rate(config: NCCTrainingConfig, step: int) -> float:
    """Return the learning rate of a step."""
    return float(config.learning_rate * config.decay ** (step / 1000))


class _Trainer:
    """The network, its optimiser, and what is known of the training so far."""

    def __init__(self, config: NCCTrainingConfig, folder: Path) -> None:
        self.config = config
        # Held-out pairs are judged by where their matches belong, also where training is not.
        self.measured = config.model_copy(update={"guided": True})
        self.folder = folder
        self.model = build_pyramid(config.network, seed=config.seed)
        self.optimiser = keras.optimizers.Adam(config.learning_rate)
        self.optimiser.build(self.model.trainable_variables)
        self.done = 0
        self.raw = self.raw_false = np.nan
        self.best, self.best_step = -np.inf, 0
        self._step = tf.function(self._descend, jit_compile=False, reduce_retracing=True)
        self._features = tf.function(lambda images: self.model(images, training=False)[-1])

    def step(self, batch: Batch, number: int) -> float:
        """Take one step, and return its loss."""
        self.optimiser.learning_rate.assign(learning_rate(self.config, number))
        loss = float(self._step(*map(tf.constant, batch)))
        if not np.isfinite(loss):
            raise TrainingError(
                f"the loss of step {number} is {loss}; start anew with a smaller learning_rate "
                f"than {self.config.learning_rate:g}"
            )
        return loss

    def _descend(self, search: Tensor, template: Tensor, place: Tensor) -> Tensor:
        with tf.GradientTape() as tape:
            loss = self._loss(
                self.model(search, training=True), self.model(template, training=True), place
            )
        weights = self.model.trainable_variables
        self.optimiser.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return loss

    def _loss(self, searched: list[Tensor], templates: list[Tensor], place: Tensor) -> Tensor:
        levels = len(self.config.network.widths)
        # The finest of the decoder is what the output is a blend of: it needs no loss of its own.
        used = [*range(levels - 1), levels] if self.config.pyramid else [levels]
        losses = []
        for k in used:
            scale = 2 ** max(levels - 1 - k, 0)
            search, template = (self._inner(x[k], scale) for x in (searched, templates))
            losses.append(matching_loss(search, template, place, self.config, scale=scale))
        return tf.add_n(losses) / len(losses)

    def _inner(self, images: Tensor, scale: int = 1) -> Tensor:
        """Cut the rims off."""
        rim = self.config.rim_px // scale
        return images[:, rim : images.shape[1] - rim, rim : images.shape[2] - rim]

    def look(self, places: Sequence[PairPlace], read: ReadWindow, loss: float) -> Progress:
        """Measure the held-out pairs, keep the network if it is the best, write a checkpoint."""
        found, raw = [], []
        for batch in held_out(places, read, self.config):
            images = [tf.constant(batch.search), tf.constant(batch.template)]
            found.append(self._margins([self._features(each) for each in images], batch.place))
            if np.isnan(self.raw):
                raw.append(self._margins(images, batch.place))
        if raw:
            self.raw, self.raw_false = _mean_and_false(raw)
        r_delta, false = _mean_and_false(found)
        if r_delta > self.best:
            self.best, self.best_step = r_delta, self.done
            write_model(self.folder / MODEL, Network(self.config.network, weights_of(self.model)))
        progress = self._progress(loss, r_delta, false)
        self._save(progress)
        return progress

    def _margins(self, images: list[Tensor], place: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the held-out r_delta of a batch; below 0 where the match is false."""
        search, template = (self._inner(each) for each in images)
        peaks, _ = peaks_of(search, template, tf.constant(place), self.measured)
        return np.asarray(peaks.r_delta)

    def _progress(self, loss: float, r_delta: float, false: float) -> Progress:
        config = self.config
        stale = self.done - self.best_step >= config.patience * config.check_every
        return Progress(
            self.done, loss, r_delta, false, self.raw, self.raw_false, self.best, self.best_step,
            learning_rate(config, self.done), self.done >= config.steps or stale,
        )  # fmt: skip

    # ---------------------------------------------------------------- checkpoints and logs

    def _save(self, progress: Progress) -> None:
        self._log(progress)
        arrays: dict[str, Any] = {
            **{f"weight/{name}": value for name, value in weights_of(self.model).items()},
            **{f"optimiser/{n}": np.asarray(v) for n, v in enumerate(self.optimiser.variables)},
        }
        state = {"config": self.config.model_dump(mode="json"), "progress": asdict(progress)}
        stream = io.BytesIO()
        np.savez(stream, state=np.array(json.dumps(state)), **arrays)
        replace_file(self.folder / CHECKPOINT, stream.getvalue())

    def resume(self) -> Progress | None:
        """Go on from the last checkpoint; None if there is none."""
        path = self.folder / CHECKPOINT
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as found:
            state = json.loads(str(found["state"]))
            if state["config"] != self.config.model_dump(mode="json"):
                raise TrainingError(
                    f"{path} was made with other settings; train into another folder, or give the "
                    f"same: {json.dumps(state['config'])}"
                )
            prefix = "weight/"
            weights = {
                n.removeprefix(prefix): found[n] for n in found.files if n.startswith(prefix)
            }
            set_weights(self.model, weights)
            for n, variable in enumerate(self.optimiser.variables):
                variable.assign(found[f"optimiser/{n}"])
        progress = Progress(**state["progress"])
        self.done = progress.step
        self.raw, self.raw_false = progress.raw, progress.raw_false
        self.best, self.best_step = progress.best, progress.best_step
        return progress

    def _log(self, progress: Progress) -> None:
        """Add a row to the table, after those of earlier steps; rows that a kill left are cut."""
        row = {k: v for k, v in asdict(progress).items() if k != "has_ended"}
        path = self.folder / LOG
        rows = [r for r in _rows(path) if int(r["step"]) < progress.step]
        rows.append({"at": f"{time.time():.3f}", **{k: str(v) for k, v in row.items()}})
        stream = io.StringIO()
        table = csv.DictWriter(stream, list(rows[-1]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        replace_file(path, stream.getvalue().encode())
        write_events(self.folder / EVENTS, rows, SHOWN)


def _mean_and_false(margins: Sequence[NDArray[np.float32]]) -> tuple[float, float]:
    found = np.concatenate(margins)
    return float(found.mean()), float((found < 0).mean())


def _rows(path: Path) -> Iterator[dict[str, str]]:
    if path.exists():
        with path.open(newline="") as file:
            yield from csv.DictReader(file)
