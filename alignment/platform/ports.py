"""Ports: which are free, and who has the others."""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import NamedTuple

import psutil

from alignment.platform.config import PlatformConfig, variable_of
from alignment.platform.errors import PortTakenError
from alignment.platform.processes import is_alive
from alignment.platform.state import PlatformState


def check_ports(config: PlatformConfig, *, running: PlatformState | None = None) -> None:
    """Raise PortTakenError if another process listens on a port of the platform.

    Ports of services that are `running` already are theirs.
    """
    own = _own_ports(running)
    taken: dict[str, int] = {}  # one port a setting says enough
    for setting, port in config.ports():
        if port not in own and not is_port_free(port):
            taken.setdefault(setting, port)
    if not taken:
        return
    lines = []
    for setting, port in taken.items():
        who = listener_on(port)
        name = f"{who.name!r} (pid {who.pid})" if who.pid else who.name
        lines.append(
            f"port {port} is taken by {name}; end that process, or choose another port: "
            f"{variable_of(setting)}={_free_ports_near(config, setting)}"
        )
    raise PortTakenError("\n".join(lines))


def _own_ports(running: PlatformState | None) -> set[int]:
    settings = {
        "s3": ("s3_port", "s3_internal_port"),
        "dask-scheduler": ("dask_port", "dask_dashboard_port"),
        "airflow-api": ("airflow_port",),
    }
    if running is None:
        return set()
    living = {service.name for service in running.services if is_alive(service.process)}
    own = {setting for name in living for setting in settings.get(name, ())}
    return {port for setting, port in running.config.ports() if setting in own}


def _free_ports_near(config: PlatformConfig, setting: str) -> int:
    """Return a value for a setting whose ports are free and no other setting's."""
    first = int(getattr(config, setting))
    others = {port for name, port in config.ports() if name != setting}
    count = len(config.ports()) - len(others)
    for start in range(first + 10, 65_000, 10):
        if all(p not in others and is_port_free(p) for p in range(start, start + count)):
            return start
    return first


class Listener(NamedTuple):
    """Who listens on a port, as far as the system tells."""

    pid: int | None
    name: str


def is_port_free(port: int) -> bool:
    """Return whether a service could listen on a port of 127.0.0.1 now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of an earlier server that are still closing do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def listener_on(port: int) -> Listener:
    """Return the process that listens on a TCP port; without a pid if it is another user's."""
    with suppress(psutil.AccessDenied):
        for connection in psutil.net_connections("tcp"):
            local = connection.laddr
            if connection.status != psutil.CONN_LISTEN or not local or local.port != port:
                continue
            with suppress(psutil.Error):
                if connection.pid is not None:
                    return Listener(connection.pid, psutil.Process(connection.pid).name())
    return Listener(None, "a process of another user")
