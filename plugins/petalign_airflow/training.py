"""The task that trains a network: its form, and the errand that it gives to the cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, Param
from airflow.sdk.exceptions import AirflowFailException

from alignment.errors import ConfigError
from alignment.learning.config import LearnConfig, parse_learn_config
from petalign_airflow.errands import ErrandOperator
from petalign_airflow.hooks import DaskHook
from petalign_airflow.params import nested, setting_params, uri_params

if TYPE_CHECKING:
    from airflow.sdk import Context

TRAINED = Asset("petalign_trained_network")
"""Updated when a training has ended."""

PLACES = {
    "stack": "An aligned volume, or sections that lie on each other already.",
    "folder": "Where the network, checkpoints and logs shall be; one folder for each training.",
}


def train_params() -> dict[str, Param]:
    """Return the parameters of a training: its two places, and every setting."""
    return uri_params(PLACES) | setting_params(LearnConfig)


class TrainOperator(ErrandOperator):
    """Train an NCCNet on one Dask worker, without holding a worker slot of Airflow.

    A retry finds the training that it lost, or goes on from the last checkpoint in the folder. A
    user who marks the task as failed or successful, or clears it, ends the training after its step.

    Returns where the network is and its digest, which ``features.model`` of `align_volume` takes.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            errand="train_nccnet",
            about="folder",
            places=tuple(PLACES),
            settings=("config",),
            **kwargs,
        )

    def read_order(self, context: Context, hook: DaskHook) -> dict[str, Any]:
        """Return both places, and every setting as ``config``."""
        params = context["params"]
        try:
            config = parse_learn_config(nested(params, besides=PLACES, model=LearnConfig))
        except ConfigError as error:
            raise AirflowFailException(str(error)) from error
        for place in PLACES:
            hook.check_uri(str(params[place]))
        return {place: params[place] for place in PLACES} | {
            "config": config.model_dump(mode="json")
        }

    def finish(self, context: Context, found: dict[str, Any]) -> Any:
        """Return where the network is and how good; the asset's event has it, too."""
        self.tell(found)
        for asset in self.outlets:
            context["outlet_events"][asset].extra = found
        return found

    def tell(self, found: dict[str, Any]) -> None:
        """Name the network."""
        if found:
            self.log.info(
                "%s, sha256 %s: held-out r_delta %.3f after %d steps; raw %.3f",
                found["model"],
                found["sha256"],
                found["r_delta"],
                found["best_step"],
                found["raw_r_delta"],
            )
