"""The Dask cluster behind an Airflow connection."""

from __future__ import annotations

import pkgutil
import re
import uuid
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from petalign_airflow.retries import ClusterLost
from petalign_airflow.trust import is_loopback, mismatch_of, security_of
from petalign_airflow.uris import is_below, segments
from storage.errors import UriError

if TYPE_CHECKING:
    from airflow.sdk import Connection
    from distributed import Client, Future

PRIORITY = 100
"""Ahead of all blocks in Dask's queue: a run starts while another keeps the workers busy."""


class Driver(NamedTuple):
    """What the cluster knows about a driver that was started."""

    status: Literal["unknown", "waiting", "running", "finished", "failed", "gone"]
    words: str

    @property
    def is_over(self) -> bool:
        """Whether the cluster itself says that nobody works on it any more."""
        return self.status in ("finished", "failed", "gone")


class DaskHook(BaseHook):
    """Starts drivers that outlive Airflow, calls short functions, and guards a run's URIs.

    The extra of the connection holds ``allowed_uris``, ``dashboard_url``, ``connect_timeout``, the
    files ``tls_ca``, ``tls_cert`` and ``tls_key``, and ``allow_plain``. Dask runs what it is sent,
    so a scheduler beyond this machine is spoken to by TLS only, unless ``allow_plain`` is true.
    Dask itself is imported on use; without TLS files in the extra, its own configuration counts.

    :param dask_conn_id: a connection of type "dask": host and port of the scheduler
    :param address: of a cluster that was started for the run; that of the connection without it
    """

    conn_name_attr = "dask_conn_id"
    default_conn_name = "dask_default"
    conn_type = "dask"
    hook_name = "Dask scheduler"

    def __init__(self, dask_conn_id: str = default_conn_name, address: str = "") -> None:
        super().__init__()
        self.dask_conn_id = dask_conn_id
        self.started_address = address

    @cached_property
    def connection(self) -> Connection:
        """The Airflow connection."""
        return self.get_connection(self.dask_conn_id)

    @property
    def extra(self) -> dict[str, Any]:
        """The extra of the connection."""
        return self.connection.extra_dejson

    @property
    def address(self) -> str:
        """The scheduler's address; by default ``tcp://``, with TLS files ``tls://``; port 8786."""
        protocol, host, port = self._protocol_host_port
        return f"{protocol or ('tls' if self.extra.get('tls_ca') else 'tcp')}://{host}:{port}"

    @property
    def dashboard_url(self) -> str:
        """Where people find Dask's dashboard: as configured, or port 8787 of the scheduler.

        A cluster that was started for a run is asked.
        """
        if self.started_address:
            with self.get_conn() as client:
                return str(client.dashboard_link)
        _, host, _ = self._protocol_host_port
        return self.extra.get("dashboard_url") or f"http://{host}:8787/status"

    @property
    def _protocol_host_port(self) -> tuple[str, str, int]:
        """Take the connection apart; its host may be a whole address such as Dask prints."""
        named = self.started_address or self.connection.host or "127.0.0.1"
        protocol, _, host = named.rpartition("://")
        if match := re.fullmatch(r"(.+):(\d+)", host):
            return protocol, match[1], int(match[2])
        return protocol, host, self.connection.port or 8786

    def check_address(self) -> None:
        """Refuse to speak to another machine without TLS.

        :raises AirflowFailException: naming the address and the settings
        """
        _, host, _ = self._protocol_host_port
        plain = not self.address.startswith("tls://")
        if plain and not is_loopback(host) and self.extra.get("allow_plain") is not True:
            raise AirflowFailException(
                f"{self.address} is not on this machine and is not spoken to without TLS: whoever "
                "reaches a Dask scheduler runs code on the cluster. Set tls_ca, tls_cert and "
                f"tls_key in the extra of connection {self.dask_conn_id!r}, or allow_plain: true "
                "if the network itself keeps others out"
            )

    @property
    def allowed_uris(self) -> list[str]:
        """What runs may touch; a list, or one string with a URI a line."""
        allowed = self.extra.get("allowed_uris") or []
        return allowed.split() if isinstance(allowed, str) else list(allowed)

    def check_uri(self, uri: str) -> None:
        """Refuse a URI that the connection does not allow.

        :raises AirflowFailException: naming the URI, what is allowed, and the setting
        """
        allowed = self.allowed_uris
        setting = f"'allowed_uris' in the extra of connection {self.dask_conn_id!r}"
        try:
            if is_below(uri, allowed):
                return
            reason = f"allowed are {', '.join(allowed)}" if allowed else "nothing is allowed yet"
        except UriError as error:
            reason = str(error)
        raise AirflowFailException(f"URI {uri!r} is refused: {reason}; see {setting}")

    def get_conn(self) -> Client:
        """Connect to the scheduler; use it in a ``with`` block."""
        self.check_address()
        from distributed import Client

        timeout_s = self.extra.get("connect_timeout") or 10
        try:
            return Client(
                self.address,
                timeout=timeout_s,
                set_as_default=False,
                name="airflow",
                security=security_of(self.extra),
            )
        except (OSError, ValueError) as error:
            raise ClusterLost(
                f"no Dask scheduler answers at {self.address} within {timeout_s} s ({error}); "
                f"start it or correct connection {self.dask_conn_id!r}"
            ) from error

    def test_connection(self) -> tuple[bool, str]:
        """Return whether runs can use the cluster, in words: Airflow shows them beside *Test*."""
        try:
            allowed = list(map(segments, self.allowed_uris))
            with self.get_conn() as client:
                workers, slots = client.nthreads(), sum(client.nthreads().values())
                versions = client.get_versions()
        except (AirflowException, UriError, TypeError) as error:
            return False, str(error)
        if not allowed:
            return False, (
                f"{self.address} answers, but runs may touch nothing: list URIs such as "
                "s3://bucket/ in 'allowed_uris' of the extra"
            )
        if mismatch := mismatch_of(versions):
            return False, f"{self.address} answers, but {mismatch}"
        hint = "" if workers else "; stages wait until there are some"
        return True, f"{self.address}: {len(workers)} workers with {slots} slots{hint}"

    def start(
        self,
        function: str,
        *args: Any,
        name: str,
        key: str,
        resources: Mapping[str, float] | None = None,
    ) -> None:
        """Run ``function(*args)`` on the cluster, whatever becomes of this process.

        The task is published on the scheduler, which then wants its result in place of this
        client: it runs again elsewhere if its worker dies, and its error is kept for `look_up`
        (``fire_and_forget`` survives the same deaths but drops the error). A task published before
        under the same name is dropped in the same step.

        :param function: ``"package.module:name"``, imported on the cluster only
        :param name: of the driver; the same for every attempt
        :param key: new for every attempt, because Dask answers a known key with its old error
        :param resources: that it takes of its worker's; it waits for a worker that offers them
        """
        needs = dict(resources) if resources else None
        with self.get_conn() as client:
            task = client.submit(
                _remote(function), *args, key=key, pure=False, priority=PRIORITY, resources=needs
            )
            client.publish_dataset(task, name=name, override=True)

    def look_up(self, name: str) -> Driver:
        """Say what became of the driver `name`; an unreachable cluster is an answer, too."""
        try:
            with self.get_conn() as client, client.as_current():
                return _status(client, client.get_dataset(name))
        except KeyError:
            return Driver("gone", "the scheduler does not know it: it was restarted since")
        except (AirflowException, OSError) as error:
            return Driver("unknown", str(error))

    def forget(self, name: str) -> None:
        """Let the scheduler drop the driver `name`; one that no worker has taken never runs."""
        try:
            with self.get_conn() as client:
                client.unpublish_dataset(name)
        except (AirflowException, OSError) as error:  # then there is nothing left to drop
            self.log.warning("driver %s was not dropped: %s", name, error)

    def call(self, function: str, *args: Any, timeout_s: float = 600.0) -> Any:
        """Return ``function(*args)``, run on the cluster; its exceptions are raised here.

        :param function: ``"package.module:name"``, imported on the cluster only
        """
        with self.get_conn() as client:
            key = f"{function.rpartition(':')[2]}-{uuid.uuid4()}"
            task = client.submit(_remote(function), *args, key=key, pure=False, priority=PRIORITY)
            try:
                return task.result(timeout=timeout_s)
            except TimeoutError as error:
                if task.done():  # the function's own
                    raise
                raise ClusterLost(
                    f"{function} did not finish within {timeout_s:g} s on {self.address}, "
                    f"which has {len(client.nthreads())} workers"
                ) from error


def _status(client: Client, task: Future[Any]) -> Driver:
    try:
        error = task.exception(timeout=2)
    except TimeoutError:
        if any(task.key in keys for keys in client.processing().values()):
            return Driver("running", "a worker has it, but it writes no heartbeat")
        workers = len(client.nthreads())
        return Driver("waiting", f"none of the {workers} workers has taken it yet")
    if error is not None:
        return Driver("failed", f"{type(error).__name__}: {error}")
    if task.status != "finished":
        return Driver("unknown", f"the scheduler has dropped it ({task.status})")
    return Driver("finished", "it ended without settling its stage")


def _remote(function: str) -> Callable[..., Any]:
    """Return a function that imports `function` where it is called.

    It is pickled by value, being local, so workers need neither Airflow nor this package, and
    Airflow needs nothing of what the drivers import.
    """

    def call(*args: Any) -> Any:
        return pkgutil.resolve_name(function)(*args)

    return call
