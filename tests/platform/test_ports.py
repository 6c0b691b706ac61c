import os
import socket

import pytest

from alignment.platform.config import variable_of
from alignment.platform.errors import PortTakenError
from alignment.platform.lifecycle import up
from alignment.platform.ports import check_ports, is_port_free
from alignment.platform.processes import identify
from alignment.platform.state import Home, PlatformState, ServiceState


@pytest.fixture
def take():
    """Return a function that listens on a port until the test ends."""
    sockets = []

    def take(port: int) -> None:
        listener = socket.socket()
        sockets.append(listener)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()

    yield take
    for listener in sockets:
        listener.close()


def test_free_ports_pass(config):
    check_ports(config)


@pytest.mark.parametrize("setting", ["s3_port", "dask_dashboard_port", "airflow_port"])
def test_a_taken_port_is_named_with_its_owner_and_a_way_out(config, take, setting):
    port = getattr(config, setting)
    take(port)
    with pytest.raises(PortTakenError) as error:
        check_ports(config)
    message = str(error.value)
    assert f"port {port} is taken by" in message
    assert f"(pid {os.getpid()})" in message
    variable, _, proposal = message.rpartition(" ")[2].partition("=")
    assert variable == variable_of(setting)
    assert is_port_free(int(proposal))
    check_ports(config.model_copy(update={setting: int(proposal)}))


def test_one_line_for_all_internal_ports_and_a_proposal_for_all(config, take):
    take(config.s3_internal_port + 2)
    take(config.s3_internal_port + 5)
    with pytest.raises(PortTakenError) as error:
        check_ports(config)
    (line,) = str(error.value).splitlines()
    proposal = int(line.rpartition("PETALIGN_S3_INTERNAL_PORT=")[2])
    check_ports(config.model_copy(update={"s3_internal_port": proposal}))


def test_nothing_is_started_when_a_port_is_taken(config, take):
    take(config.dask_port)
    with pytest.raises(PortTakenError, match="PETALIGN_DASK_PORT="):
        up(config)
    home = Home(config.home)
    assert not home.state.exists()
    assert list(home.logs.iterdir()) == []


def test_the_port_of_a_service_that_runs_already_is_its_own(config, take):
    take(config.airflow_port)
    service = ServiceState(name="airflow-api", title="API", process=identify(os.getpid()))
    check_ports(config, running=PlatformState(config=config, services=(service,)))
    dead = service.model_copy(update={"process": None})
    with pytest.raises(PortTakenError):
        check_ports(config, running=PlatformState(config=config, services=(dead,)))
