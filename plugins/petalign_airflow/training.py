"""The task that trains a network: its form, and the errand that it gives to the cluster."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, Param
from airflow.sdk.exceptions import AirflowFailException

from alignment.config import Config
from alignment.errors import ConfigError
from alignment.learning.config import LearnConfig, parse_learn_config
from alignment.learning.segmentation.config import SegmentConfig, parse_segment_config
from inference.errors import ConfigError as InferenceConfigError
from inference.training.cluster import check_workers
from inference.training.config import MODES
from petalign_airflow.errands import ErrandOperator
from petalign_airflow.hooks import DaskHook
from petalign_airflow.params import nested, setting_params, uri_params

if TYPE_CHECKING:
    from airflow.sdk import Context

TRAINED = Asset("petalign_trained_network")
TRAINED_UNET = Asset("petalign_trained_unet")
"""Updated when a training has ended."""

FOLDER = "folder"
_FOLDER = {
    FOLDER: "Where the network, checkpoints and logs shall be; one folder for each training."
}
HARDWARE = "hardware"


@dataclass(frozen=True)
class Training:
    """What one kind of training has of its own.

    :param places: parameters that are URIs, with their help
    :param model: of its settings
    :param parse: checks these
    :param told: one line for the log, filled in with what was found
    :param options: parameters that are neither places nor settings
    :param check: refuses options that do not go together
    """

    places: Mapping[str, str]
    model: type[Config]
    parse: Callable[[dict[str, Any]], Config]
    told: str
    options: Mapping[str, Param] = field(default_factory=dict)
    check: Callable[[Mapping[str, Any]], None] = lambda _: None


def _check_workers(options: Mapping[str, Any]) -> None:
    try:
        check_workers(options["mode"], options["workers"])
    except InferenceConfigError as error:
        raise ConfigError(str(error)) from None


TRAININGS = {
    "train_nccnet": Training(
        {"stack": "An aligned volume, or sections that lie on each other already."} | _FOLDER,
        LearnConfig,
        parse_learn_config,
        "%(model)s, sha256 %(sha256)s: held-out r_delta %(r_delta).3f after %(best_step)d steps; "
        "raw %(raw_r_delta).3f",
    ),
    "train_unet": Training(
        {"data": "Holds two stacks of one size, images and labels: see data.images, data.labels."}
        | _FOLDER,
        SegmentConfig,
        parse_segment_config,
        "%(model)s, sha256 %(sha256)s: held-out Dice %(dice).4f after epoch %(best_epoch)d of "
        "%(epochs)d, %(samples)d samples",
        {
            "mode": Param(
                "local",
                "One process; replicas in one process; workers in step; workers apart.",
                enum=list(MODES),
                title="Mode",
            ),
            "workers": Param(
                1,
                "That learn at once; all of them beside one Dask worker.",
                type="integer",
                minimum=1,
                maximum=256,
                title="Workers",
            ),
        },
        _check_workers,
    ),
}
"""By the errand that trains."""


def train_params(errand: str) -> dict[str, Param]:
    """Return the parameters of a training: its two places, how it runs, and every setting."""
    kind = TRAININGS[errand]
    hardware = Param(
        {},
        'What the training takes of its worker\'s Dask resources, such as {"gpu": 1}.',
        type="object",
        additionalProperties={"type": "number", "exclusiveMinimum": 0},
        title="Hardware",
    )
    options = {**kind.options, HARDWARE: hardware}
    return uri_params(kind.places) | options | setting_params(kind.model)


class TrainOperator(ErrandOperator):
    """Train a network on one Dask worker, without holding a worker slot of Airflow.

    A retry finds the training that it lost, or goes on from the last checkpoint in the folder. A
    user who marks the task as failed or successful, or clears it, ends the training after its step.

    Returns where the network is, its digest, and how good it is.

    :param errand: a name in `TRAININGS`
    """

    def __init__(self, *, errand: str, **kwargs: Any) -> None:
        self.kind = TRAININGS[errand]
        super().__init__(
            errand=errand,
            about=FOLDER,
            places=tuple(self.kind.places),
            settings=("config", *self.kind.options),
            **kwargs,
        )

    def read_order(self, context: Context, hook: DaskHook) -> dict[str, Any]:
        """Return both places, how it runs, and every setting as ``config``."""
        params, kind = context["params"], self.kind
        besides = (*kind.places, *kind.options, HARDWARE)
        options = {name: params[name] for name in (*kind.options, HARDWARE)}
        try:
            config = kind.parse(nested(params, besides=besides, model=kind.model))
            kind.check(options)
        except ConfigError as error:
            raise AirflowFailException(str(error)) from error
        for place in kind.places:
            hook.check_uri(str(params[place]))
        places = {place: params[place] for place in kind.places}
        return places | options | {"config": config.model_dump(mode="json")}

    def hardware_of(self, order: Mapping[str, Any]) -> Mapping[str, float]:
        """Return what the user asks of the worker."""
        return {str(tag): float(amount) for tag, amount in order[HARDWARE].items()}

    def finish(self, context: Context, found: dict[str, Any]) -> Any:
        """Return where the network is and how good; the asset's event has it, too."""
        self.tell(found)
        for asset in self.outlets:
            context["outlet_events"][asset].extra = found
        return found

    def tell(self, found: dict[str, Any]) -> None:
        """Name the network."""
        if found:
            self.log.info("%s", self.kind.told % found)
