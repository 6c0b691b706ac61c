"""The trainings of a study, one after the other; what is finished is not trained again."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from alignment.errors import ConfigError, DataError
from alignment.learning.segmentation.config import SegmentConfig
from alignment.learning.segmentation.labelled import open_samples
from alignment.learning.segmentation.processes import Processes
from alignment.learning.segmentation.train import Watched, train_segmentation
from inference.errors import ConfigError as InferenceConfigError
from inference.model_file import replace_file
from inference.training.cluster import local_cluster
from inference.training.config import MODES, Mode
from inference.training.files import MODEL
from inference.training.judging import judge_file

STUDY, RUNS, DONE = "study.json", "runs", "done.json"
"""In the folder of a study: its settings, and the folder of its trainings, each of which has the
last file once it is finished."""
APART = "apart"
"""In `DONE`: how good the best network is on sections that no training has seen, if there are."""
LOST = "lost_workers"
"""In `DONE`: how many workers died that the others went on without."""


class Combination(NamedTuple):
    """One training of a study."""

    mode: Mode
    workers: int
    seed: int

    @property
    def name(self) -> str:
        """Return the name of its folder.

        >>> Combination("sync", 3, 1).name, Combination.of("sync-3-1")
        ('sync-3-1', Combination(mode='sync', workers=3, seed=1))
        """
        return f"{self.mode}-{self.workers}-{self.seed}"

    @classmethod
    def of(cls, name: str) -> Self:
        """Return the combination of a folder's name."""
        mode, *numbers = name.split("-")
        chosen = next((each for each in MODES if each == mode), None)
        if chosen is None or len(numbers) != 2 or not all(n.isdecimal() for n in numbers):
            raise DataError(
                f"{name!r} is no training of a study: expected MODE-WORKERS-SEED, such as sync-3-1"
            )
        return cls(chosen, int(numbers[0]), int(numbers[1]))


class Studied(Watched):
    """What a study says while it runs, besides what each training says."""

    def began(self, combination: Combination) -> None:
        """Receive the training that begins, or goes on."""

    def ended(self, combination: Combination, *, is_new: bool) -> None:
        """Receive one that is finished; not new if it was so before."""


def combinations(
    modes: Sequence[str], workers: Sequence[int], seeds: Sequence[int]
) -> list[Combination]:
    """Return the trainings of a grid: all of one seed first, so that they can be compared early.

    Local training has one worker.

    >>> [each.name for each in combinations(["local", "sync"], [1, 2], [7])]
    ['local-1-7', 'sync-1-7', 'sync-2-7']

    Raises
    ------
    ConfigError
        If there is no such mode, or no such number of workers.
    """
    unknown = [mode for mode in modes if mode not in MODES]
    if unknown or not modes:
        raise ConfigError(f"--modes {','.join(modes)}: expected some of {', '.join(MODES)}")
    if not workers or not seeds:
        raise ConfigError("--workers and --seeds each need at least one number")
    chosen = [mode for mode in MODES if mode in modes]
    found = [
        Combination(mode, n, seed)
        for seed in seeds
        for mode in chosen
        for n in ([1] if mode == "local" else workers)
    ]
    try:
        for each in found:
            local_cluster(each.mode, each.workers)
    except InferenceConfigError as error:
        raise ConfigError(str(error)) from None
    return list(dict.fromkeys(found))


def run_study(
    data: str,
    folder: Path,
    config: SegmentConfig,
    grid: Iterable[Combination],
    *,
    watched: Studied | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> None:
    """Train every combination to its end, in their order.

    Parameters
    ----------
    data : str
        A path or URI, see `alignment.learning.segmentation.labelled`.
    config : SegmentConfig
        Of all of them; the seed is each combination's.
    stop : callable
        Asked again and again; a study that is stopped goes on where it was.

    Raises
    ------
    ConfigError
        If the folder is that of a study with other settings.
    """
    watched = watched or Studied()
    freeze(folder, data, config)
    for each in grid:
        place = folder / RUNS / each.name
        is_new = not (place / DONE).exists()
        if is_new:
            watched.began(each)
            _train(data, place, config, each, watched, stop)
        watched.ended(each, is_new=is_new)


def _train(
    data: str,
    place: Path,
    config: SegmentConfig,
    combination: Combination,
    watched: Studied,
    stop: Callable[[], bool],
) -> None:
    mode, workers, seed = combination
    started: list[Processes] = []
    seeded = with_seed(config, seed)
    train_segmentation(
        data, str(place), seeded, mode=mode, workers=workers, watched=watched, stop=stop,
        started=started.append,
    )  # fmt: skip
    model = (place / MODEL).read_bytes()
    lost = sum(len(each.lost) for each in started)
    replace_file(place / DONE, json.dumps(outcome(data, model, seeded, lost=lost)).encode())


def outcome(data: str, model: bytes, config: SegmentConfig, *, lost: int = 0) -> dict[str, Any]:
    """Return what a finished training leaves as `DONE`.

    Parameters
    ----------
    model : bytes
        The best network by the held-out samples.
    """
    apart = None
    if config.data.kept_apart:
        found = judge_file(model, open_samples(data, config, apart=True))
        apart = {name: float(value) for name, value in found._asdict().items()}
    return {APART: apart, LOST: lost}


def with_seed(config: SegmentConfig, seed: int) -> SegmentConfig:
    """Return the settings with another seed."""
    training = config.training.model_copy(update={"seed": seed})
    return config.model_copy(update={"training": training})


def freeze(folder: Path, data: str, config: SegmentConfig) -> None:
    """Note what a folder's study is of, or refuse it if that is something else.

    Raises
    ------
    ConfigError
        If it is, or if trainings may end early.
    """
    if config.training.patience:
        raise ConfigError(
            f"training.patience={config.training.patience} would end trainings after different "
            "numbers of epochs; leave it 0 in a study"
        )
    settings = with_seed(config, 0).model_dump(mode="json")
    now = {"of": data, **_flat(settings)}
    path = folder / STUDY
    if path.exists():
        before = json.loads(path.read_text())
        changed = sorted(k for k in {*before, *now} if before.get(k) != now.get(k))
        if changed:
            told = ", ".join(f"{k}={json.dumps(before.get(k))}" for k in changed)
            raise ConfigError(
                f"{path} is of a study with other settings ({told}); give the same, or another "
                "folder"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    replace_file(path, json.dumps(now, indent=1).encode())


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings by their full names.

    >>> _flat({"a": {"b": 1}, "c": 2})
    {'a.b': 1, 'c': 2}
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        inner = _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else None
        found |= inner if inner is not None else {f"{prefix}{name}": value}
    return found
