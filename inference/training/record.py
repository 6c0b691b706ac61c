"""What one process of a training writes: journal, table, best network and checkpoint.

The checkpoint is replaced last and at once. So a kill between any two writes leaves a whole one,
and training that goes on cuts what the other files have beyond it.
"""

from __future__ import annotations

import io
import json
import tempfile
import time
import warnings
from dataclasses import asdict, replace
from itertools import batched
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.errors import TrainingError
from inference.keras_on_tensorflow import tf
from inference.model_file import replace_file
from inference.training.config import Mode, TrainConfig
from inference.training.events import write_events
from inference.training.files import CHECKPOINT, EVENTS, JOURNAL, LOG, MODEL, PICTURES
from inference.training.journal import Entry, Journal
from inference.training.learner import Learner
from inference.training.losses import Judgement, judge, likelihood_of
from inference.training.progress import SHOWN, Progress, add_row
from inference.training.samples import Samples, stacked
from inference.training.triptych import triptych, write_triptych

JUDGED_AT_A_TIME = 4
"""Held-out samples that the network sees at once."""


def read_checkpoint(
    folder: Path, config: TrainConfig, mode: Mode, workers: int
) -> tuple[dict[str, NDArray[Any]], Progress, int] | None:
    """Return variables, progress and size of the journal of the last checkpoint, if there is one.

    Raises
    ------
    TrainingError
        If it was made with other settings, or with other workers.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    with np.load(path, allow_pickle=False) as found:
        told = json.loads(str(found["state"]))
        arrays = {name: found[name] for name in found.files if name != "state"}
    now = _settings(config, mode, workers)
    if told["settings"] != now:
        # How long is trained may change: what was learned so far is the same.
        names = sorted(k for k in now if told["settings"].get(k) != now[k])
        raise TrainingError(
            f"{path} was made with other settings ({', '.join(names)}): "
            f"{json.dumps({k: told['settings'].get(k) for k in names})}; give the same, or train "
            "into another folder"
        )
    return arrays, Progress(**told["progress"]), int(told["journal_bytes"])


def _settings(config: TrainConfig, mode: Mode, workers: int) -> dict[str, Any]:
    changing = {"epochs", "patience", "display_every", "picture_every"}
    values = config.model_dump(mode="json", exclude=changing)
    return {**values, "mode": mode, "workers": workers}


class Record:
    """Keeps the files of a training, and knows how it stands.

    Parameters
    ----------
    workers : int
        That learn at the same time.
    """

    def __init__(
        self, learner: Learner, samples: Samples, folder: Path, mode: Mode, workers: int
    ) -> None:
        self.learner, self.samples, self.config = learner, samples, samples.config
        self.folder, self.mode, self.workers = folder, mode, workers
        self.journal = Journal(folder / JOURNAL)
        self._judging = [
            stacked(list(group)) for group in batched(samples.held_out(), JUDGED_AT_A_TIME)
        ]
        self._started = time.monotonic()
        self._losses: list[float] = []
        self._stale: list[int] = []

    def begin(self) -> Progress:
        """Go on from the last checkpoint, or look at the network as it is before training."""
        self.folder.mkdir(parents=True, exist_ok=True)
        found = read_checkpoint(self.folder, self.config, self.mode, self.workers)
        if found is not None:
            arrays, progress, size = found
            self.learner.restore(arrays)
            self.journal.cut(size)
            self.progress = replace(progress, has_ended=self._has_ended(progress))
        else:
            self.journal.cut(0)
            nothing = Progress(
                0, 0, 0, 0.0, np.nan, np.nan, np.nan, np.nan, np.nan, -np.inf, 0,
                self.config.learning_rate, 0.0, 0,
            )  # fmt: skip
            self.progress = self._looked(nothing)
            self._save()
        self._started = time.monotonic()
        return self.progress

    def step(self, number: int, loss: float, accuracy: float, stale: int = 0) -> None:
        """Note a step, counted from 0, and write its line if it is time for one.

        Raises
        ------
        TrainingError
            If the loss is no number any more.
        """
        if not np.isfinite(loss):
            raise TrainingError(
                f"the loss of step {number} is {loss}; start anew with a smaller "
                f"training.learning_rate than {self.config.learning_rate:g}"
            )
        self._losses.append(loss)
        self._stale.append(stale)
        if number % self.config.display_every == 0:
            self.journal.write(Entry("iteration", number, loss, accuracy, 100 * (1 - accuracy)))

    def end_epoch(self, *, samples: int) -> Progress:
        """Judge the network, keep it if it is the best, and write a checkpoint.

        Parameters
        ----------
        samples : int
            That were learned from in this epoch.
        """
        before = self.progress
        epoch = before.epoch + 1
        now = replace(
            before,
            epoch=epoch,
            step=before.step + len(self._losses),
            samples=before.samples + samples,
            seconds=before.seconds + time.monotonic() - self._started,
            loss=float(np.mean(self._losses)),
            learning_rate=rate_of(self.config, epoch - 1),
            staleness=float(np.mean(self._stale)),
            most_stale=max(self._stale),
        )
        entry = Entry("epoch", epoch - 1, now.loss, learning_rate=now.learning_rate)
        self.journal.write(entry)
        self.progress = self._looked(now)
        self._losses, self._stale = [], []
        self._save()
        self._started = time.monotonic()
        return self.progress

    def _looked(self, progress: Progress) -> Progress:
        """Return the progress with what held-out samples say."""
        self.learner.take_up()
        scores = tf.concat([self.learner.predict(b.images) for b in self._judging], 0)
        labels = np.concatenate([batch.labels for batch in self._judging])
        found: Judgement = judge(scores, labels, self.config)
        if self.config.picture_every and progress.epoch % self.config.picture_every == 0:
            batch, likely = self._judging[0], likelihood_of(scores[:1])
            picture = triptych(batch.images[0], batch.labels[0], np.asarray(likely[0]))
            write_triptych(self.folder / PICTURES / f"epoch-{progress.epoch:04d}.png", picture)
        self.journal.write(Entry("verification", loss=found.loss, error_percent=100 * found.error))
        now = replace(
            progress,
            held_out_loss=found.loss,
            held_out_error=found.error,
            dice=found.dice,
            pooled_dice=found.pooled_dice,
        )
        if now.dice > now.best:
            now = replace(now, best=now.dice, best_epoch=now.epoch)
            replace_file(self.folder / MODEL, saved(self.learner.network()))
        return replace(now, has_ended=self._has_ended(now))

    def _has_ended(self, progress: Progress) -> bool:
        stale = progress.epoch - progress.best_epoch
        is_stale = bool(self.config.patience) and stale >= self.config.patience
        return progress.epoch >= self.config.epochs or is_stale

    def _save(self) -> None:
        rows = add_row(self.folder / LOG, self.progress)
        write_events(self.folder / EVENTS, rows, SHOWN)
        state = {
            "settings": _settings(self.config, self.mode, self.workers),
            "progress": asdict(self.progress),
            "journal_bytes": self.journal.size,
        }
        arrays: dict[str, Any] = {**self.learner.state(), "state": np.array(json.dumps(state))}
        stream = io.BytesIO()
        np.savez(stream, **arrays)
        replace_file(self.folder / CHECKPOINT, stream.getvalue())


def rate_of(config: TrainConfig, epoch: int) -> float:
    """Return the learning rate of an epoch, counted from 0."""
    return float(config.learning_rate * config.decay**epoch)


def saved(model: Any) -> bytes:
    """Return the file of a Keras model."""
    with tempfile.TemporaryDirectory(prefix="petalign-model-") as folder, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "__array__ implementation", DeprecationWarning)
        path = Path(folder) / "model.keras"
        model.save(path)
        return path.read_bytes()
