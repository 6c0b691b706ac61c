"""The task that freezes a prediction: a network over a published volume. Driving is a stage's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, BaseOperator, Param
from airflow.sdk.exceptions import AirflowFailException

from alignment.predicting.config import PredictConfig, parse_predict_config
from petalign_airflow.hooks import DaskHook
from petalign_airflow.links import DashboardLink
from petalign_airflow.params import nested, setting_params, uri_params
from petalign_airflow.retries import FINAL_ERRORS
from storage.errors import MissingError

if TYPE_CHECKING:
    from airflow.sdk import Context

PREPARE = "alignment.predicting.runs:prepare_told"

PREDICTED = Asset("petalign_predicted_volume")
"""Updated by publishing alone."""

PLACES = {
    "volume": "The aligned volume, of which something is published.",
    "model": "The network, a file name.keras of Keras 3, or name.onnx.",
    "prediction": "Where the prediction shall be: a volume of its own, with versions.",
}
AT = "at"


def predict_params() -> dict[str, Param]:
    """Return the parameters of a prediction: places, the version, and every setting."""
    version = Param(
        None,
        "An epoch or a run of the volume instead of what is published.",
        type=["string", "null"],
        pattern="^[0-9a-f]{1,16}$",
        title="Version",
    )
    return uri_params(PLACES) | {AT: version} | setting_params(PredictConfig)


class PreparePredictionOperator(BaseOperator):
    """Check the parameters of a DAG run and freeze them, with the model, into a run.

    Nothing is written before every parameter and all three URIs are known to be allowed. A worker
    looks into the model, says what the prediction takes, and refuses what would not fit. The same
    parameters give the same run, so a second DAG run shares its work.

    Returns the URI of the run, for a `RunStageOperator` of the stage "predict".

    :param dask_conn_id: the cluster, and what runs may touch
    :param address: of the cluster's scheduler, if it is not that of the connection
    """

    template_fields = ("address",)
    operator_extra_links = (DashboardLink(),)

    def __init__(
        self,
        *,
        dask_conn_id: str = DaskHook.default_conn_name,
        address: str = "",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.dask_conn_id = dask_conn_id
        self.address = address

    def execute(self, context: Context) -> str:
        """Return the URI of the run."""
        params = context["params"]
        hook = DaskHook(self.dask_conn_id, self.address)
        try:
            settings = nested(params, besides=(*PLACES, AT), model=PredictConfig)
            config = parse_predict_config(settings).model_dump(mode="json")
            for place in PLACES:
                hook.check_uri(str(params[place]))
            volume, model, target = (params[place] for place in PLACES)
            told = hook.call(PREPARE, volume, model, target, config, version_of(params[AT]))
        except (*FINAL_ERRORS, MissingError) as error:
            raise AirflowFailException(str(error)) from error
        self.log.info("run %s, computed by %s", told["run_uri"], told["by"])
        for name, value in told["figures"].items():
            self.log.info("%s: %s", name, f"{value:,}")
        context["ti"].xcom_push("figures", told["figures"])
        return str(told["run_uri"])


def version_of(text: str | None) -> int | str | None:
    """Return an epoch as a number, and the key of a run as it is.

    >>> version_of("12"), version_of("0a1b2c"), version_of(None)
    (12, '0a1b2c', None)
    """
    return int(text) if text and text.isdecimal() and len(text) < 10 else text
