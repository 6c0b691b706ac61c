"""`petalign train`: progress, and what came of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignment.commands.console import counter, err, out, print_json
from alignment.commands.stopping import stop_when_asked
from alignment.errors import ConfigError, DataError
from alignment.learning.config import LearnConfig, parse_learn_config
from alignment.learning.nccnet import pairs_of
from alignment.learning.remote import StoredFolder, TrainingFolder, training_folder
from alignment.verbs.options import file_settings, with_settings
from inference.errors import BackendError, TrainingError
from inference.training_files import MODEL
from storage.store import join, normalise_uri, read_bytes

if TYPE_CHECKING:
    from inference.nccnet_training import Progress

THREADS = "TF_NUM_INTRAOP_THREADS"


def read_learn_config(path: Path | None, settings: list[str] | None) -> LearnConfig:
    """Return the settings of a file with the ones of the command line laid over them."""
    before = parse_learn_config(file_settings(path)).model_dump(mode="json")
    return parse_learn_config(with_settings(before, settings))


def train_at(
    uris: Sequence[str], place: str, path: Path | None, settings: list[str] | None, *, quiet: bool
) -> Progress:
    """Train in a folder of this machine, or in one of the store if `place` is a URI.

    Raises
    ------
    KeyboardInterrupt
        If the system asked to stop before the end.
    """
    with training_folder(place) as folder, _threads_of(folder), stop_when_asked() as stop:
        trained = train_nccnet(
            uris, folder.path, path, settings, quiet=quiet, keep=folder.keep, stop=stop
        )
        if stop() and not trained.has_ended:
            raise KeyboardInterrupt
    return trained


@contextmanager
def _threads_of(folder: TrainingFolder) -> Iterator[None]:
    """Let TensorFlow, once it is imported, take the threads with which a training was begun.

    So it ends with the same weights on a machine with more cores, too. In a folder of this machine
    TensorFlow chooses.
    """
    if not isinstance(folder, StoredFolder):
        yield
        return
    before = os.environ.get(THREADS)
    folder.threads = folder.threads or int(before or len(os.sched_getaffinity(0)))
    os.environ[THREADS] = str(folder.threads)
    try:
        yield
    finally:
        del os.environ[THREADS]
        os.environ.update({THREADS: before} if before else {})


def train_nccnet(
    uris: Sequence[str],
    folder: Path,
    path: Path | None,
    settings: list[str] | None,
    *,
    quiet: bool,
    keep: Callable[[Mapping[str, Any] | None], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Progress:
    """Find pairs and train; a second call with the same arguments goes on.

    Parameters
    ----------
    keep : callable
        Called when there are pairs, and with the progress after each look.
    stop : callable
        Asked after every step.

    Raises
    ------
    ConfigError
        If a setting is wrong, or TensorFlow is not installed.
    DataError
        If a stack has too few pairs.
    """
    config = read_learn_config(path, settings)
    with counter("pairs", of="hard pairs") as count:
        stacks, pairs = pairs_of(uris, folder, config, count)
    keep(None)
    if not quiet:
        seen = ", ".join(f"{n:,} {reason}" for reason, n in pairs.rejected.items())
        err.print(f"{len(pairs.train):,} pairs and {len(pairs.held_out)} held out; not: {seen}")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        from inference.nccnet_training import train
    except (ImportError, BackendError) as error:
        raise ConfigError(
            f"training needs TensorFlow ({error}); add it: pip install 'petalign[train]'"
        ) from None

    def tell(progress: Progress) -> None:
        keep(asdict(progress))
        if not quiet:
            err.print(
                f"step {progress.step:>6,}  loss {progress.loss:7.4f}  r_delta "
                f"{progress.r_delta:.4f}, {progress.false:.1%} false  (raw {progress.raw:.4f}, "
                f"{progress.raw_false:.1%}; best {progress.best:.4f} at {progress.best_step:,})",
                highlight=False,
            )

    try:
        return train(
            pairs.train, pairs.held_out, stacks, config.training, folder, tell=tell, stop=stop
        )
    except TrainingError as error:
        raise DataError(str(error)) from None


def print_trained(place: str, trained: Progress, *, as_json: bool) -> None:
    """Print where the best network is, and how good."""
    from inference.model_file import digest

    path = join(place, MODEL) if "://" in place else str(Path(place) / MODEL)
    found = {
        "model": path,
        "sha256": digest(read_bytes(normalise_uri(path))),
        "steps": trained.step,
        "best_step": trained.best_step,
        "r_delta": trained.best,
        "raw_r_delta": trained.raw,
    }
    if as_json:
        print_json(found)
        return
    out.print(f"{path}  sha256 {found['sha256']}", highlight=False)
    out.print(
        f"held-out r_delta {trained.best:.3f} after {trained.best_step:,} steps; raw "
        f"{trained.raw:.3f}",
        highlight=False,
    )
