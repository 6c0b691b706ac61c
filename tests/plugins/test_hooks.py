import os
import signal
import subprocess
import sys

import cloudpickle
import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from distributed import LocalCluster, Security

from petalign_airflow.hooks import DaskHook, Driver, _remote
from petalign_airflow.trust import mismatch_of, security_of
from tests.plugins.conftest import wait_until

NOBODY = "127.0.0.1:1"


@pytest.fixture
def hook(connect, scheduler_address):
    connect(scheduler_address, allowed_uris=["s3://petalign/cohort", "file:///data"])
    return DaskHook()


def end_of(hook: DaskHook, name: str) -> Driver:
    """Wait until the driver has ended and return how."""
    ends = []
    wait_until(lambda: ends.append(hook.look_up(name)) or ends[-1].status in ("finished", "failed"))
    return ends[-1]


@pytest.mark.parametrize(
    ("host", "address", "dashboard"),
    [
        ("dask", "tcp://dask:8786", "http://dask:8787/status"),
        ("tls://dask", "tls://dask:8786", "http://dask:8787/status"),
        ("tcp://10.0.0.7:9000", "tcp://10.0.0.7:9000", "http://10.0.0.7:8787/status"),
        ("[::1]", "tcp://[::1]:8786", "http://[::1]:8787/status"),
    ],
)
def test_a_host_or_a_whole_address_may_be_given(connect, host, address, dashboard):
    connect(host)
    assert (DaskHook().address, DaskHook().dashboard_url) == (address, dashboard)


def test_the_dashboard_may_be_elsewhere(connect):
    connect("dask", dashboard_url="https://dask.example.org/")
    assert DaskHook().dashboard_url == "https://dask.example.org/"


def test_allowed_uris_may_be_lines_of_one_text(connect):
    connect("dask", allowed_uris="s3://petalign/a\ns3://petalign/b")
    DaskHook().check_uri("s3://petalign/b/raw.zarr")


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("s3://other/raw", "allowed are s3://petalign/cohort, file:///data"),
        ("s3://petalign/cohort/../x", r"'\.\.'"),
        ("http://169.254.169.254/latest", "scheme 'http'"),
        ("s3://petalign/cohort/{{ x }}", "characters"),
    ],
)
def test_a_refusal_names_the_uri_the_reason_and_the_setting(hook, uri, reason):
    with pytest.raises(AirflowFailException, match=reason) as refusal:
        hook.check_uri(uri)
    assert repr(uri) in str(refusal.value)
    assert "'allowed_uris' in the extra of connection 'dask_default'" in str(refusal.value)


def test_without_a_setting_nothing_is_allowed(connect):
    connect("dask")
    with pytest.raises(AirflowFailException, match="nothing is allowed yet"):
        DaskHook().check_uri("s3://petalign/raw")


def test_the_connection_test_counts_workers_or_says_what_to_do(hook, connect):
    assert hook.test_connection() == (True, f"{hook.address}: 1 workers with 2 slots")
    connect(NOBODY, connect_timeout=0.3)
    ok, message = DaskHook().test_connection()
    assert not ok
    assert "no Dask scheduler answers at tcp://127.0.0.1:1 within 0.3 s" in message


def test_a_call_returns_the_value_and_raises_the_error_of_its_function(hook):
    assert hook.call("math:sqrt", 4.0) == 2.0
    with pytest.raises(ValueError, match="math domain error"):
        hook.call("math:sqrt", -1.0)
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        hook.call("no_such_module:run")


def test_workers_need_neither_airflow_nor_this_package():
    script = (
        "import pickle, sys\n"
        "print(pickle.load(sys.stdin.buffer)(9.0))\n"
        "assert not {'airflow', 'petalign_airflow'} & set(sys.modules)"
    )
    sent = cloudpickle.dumps(_remote("math:sqrt"))
    answer = subprocess.run([sys.executable, "-c", script], input=sent, stdout=subprocess.PIPE)
    assert (answer.returncode, answer.stdout) == (0, b"3.0\n")


def test_a_call_that_takes_too_long_says_where_it_waited(hook):
    with pytest.raises(
        AirflowException, match=r"did not finish within 0\.2 s on tcp://.*1 workers"
    ):
        hook.call("time:sleep", 1.0, timeout_s=0.2)


def test_a_driver_outlives_the_client_that_started_it(hook):
    # `start` has closed its client when it returns.
    hook.start("time:sleep", 4.0, name="sleeper", key="sleep-1")
    assert hook.look_up("sleeper").status == "running"
    assert end_of(hook, "sleeper").status == "finished"
    hook.forget("sleeper")
    assert hook.look_up("sleeper").status == "gone"


def test_the_error_of_a_driver_is_kept_and_the_next_attempt_does_not_inherit_it(hook):
    hook.start("math:sqrt", -1.0, name="root", key="root-1")
    assert end_of(hook, "root") == ("failed", "ValueError: math domain error")
    hook.start("math:sqrt", 1.0, name="root", key="root-2")
    assert end_of(hook, "root").status == "finished"
    hook.forget("root")


def test_a_driver_that_no_worker_took_is_waiting_and_once_forgotten_never_runs(connect, tmp_path):
    from distributed import LocalCluster

    with LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address=":0") as cluster:
        connect(cluster.scheduler_address)
        hook = DaskHook()
        for name in ("dropped", "kept"):
            hook.start("pathlib:Path.touch", tmp_path / name, name=name, key=name)
        assert hook.look_up("kept") == ("waiting", "none of the 0 workers has taken it yet")
        hook.forget("dropped")
        cluster.scale(1)
        assert end_of(hook, "kept").status == "finished"
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_a_driver_runs_again_when_its_worker_is_killed(connect, tmp_path):
    from distributed import LocalCluster

    # The first time it lasts as long as its worker.
    script = (
        f"echo $PPID >> {tmp_path}/pids; test $(wc -l < {tmp_path}/pids) = 2 || "
        "while kill -0 $PPID; do sleep 0.1; done"
    )
    with LocalCluster(
        n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address=":0", silence_logs=50
    ) as cluster:
        connect(cluster.scheduler_address)
        hook = DaskHook()
        hook.start("subprocess:check_call", ["sh", "-c", script], name="driver", key="driver-1")
        pids = tmp_path / "pids"
        wait_until(lambda: pids.exists() and pids.read_text().endswith("\n"))
        os.kill(int(pids.read_text()), signal.SIGKILL)
        assert end_of(hook, "driver").status == "finished"
    first, second = pids.read_text().split()
    assert first != second


def test_an_unreachable_cluster_is_an_answer_and_no_error(connect):
    connect(NOBODY, connect_timeout=0.3)
    driver = DaskHook().look_up("any")
    assert driver.status == "unknown"
    assert "no Dask scheduler answers" in driver.words
    DaskHook().forget("any")


# Whom it speaks to


@pytest.mark.parametrize("host", ["dask.example.org", "tcp://10.0.0.7:8786", "0.0.0.0"])
def test_another_machine_is_not_spoken_to_without_tls(connect, host):
    connect(host)
    with pytest.raises(AirflowFailException, match=r"without TLS.*tls_ca, tls_cert.*allow_plain"):
        DaskHook().get_conn()
    ok, message = DaskHook().test_connection()
    assert not ok
    assert "runs code on the cluster" in message


def test_a_plain_network_may_be_trusted_by_name_only(connect):
    connect("10.0.0.7", allow_plain="yes")
    with pytest.raises(AirflowFailException, match="allow_plain"):
        DaskHook().check_address()
    connect("10.0.0.7", allow_plain=True)
    DaskHook().check_address()


def test_tls_files_of_the_connection_are_used_and_a_stranger_is_refused(connect, tmp_path):
    """A real scheduler that wants TLS: with its files the hook connects, without it cannot."""
    files = certificate(tmp_path)
    assert security_of(files).get_connection_args("client")["require_encryption"]
    every = {
        f"tls_{role}_{part}": files[f"tls_{part}"]
        for role in ("client", "scheduler", "worker")
        for part in ("cert", "key")
    }
    security = Security(require_encryption=True, tls_ca_file=files["tls_ca"], **every)
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, protocol="tls://", host="127.0.0.1",
        dashboard_address=":0", silence_logs=50, security=security,
    ) as cluster:  # fmt: skip
        host = cluster.scheduler_address.removeprefix("tls://")
        connect(host, allowed_uris=["file:///data"], **files)
        assert DaskHook().address == f"tls://{host}"
        assert DaskHook().test_connection() == (True, f"tls://{host}: 1 workers with 1 slots")
        connect(f"tcp://{host}", connect_timeout=0.5)
        ok, message = DaskHook().test_connection()
        assert not ok
        assert "no Dask scheduler answers" in message


def certificate(folder) -> dict[str, str]:
    """Make a certificate that is its own authority; return it as a connection's extra."""
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
    subject = ["-subj", "/CN=petalign", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        [*command, *subject, "-keyout", key, "-out", cert], check=True, capture_output=True
    )
    return {"tls_ca": cert, "tls_cert": cert, "tls_key": key}


def test_a_cluster_without_allowed_uris_or_workers_says_so(connect, scheduler_address):
    connect(scheduler_address)
    ok, message = DaskHook().test_connection()
    assert not ok
    assert "runs may touch nothing" in message


def test_versions_that_differ_are_named():
    def found(distributed):
        return {"packages": {"distributed": distributed, "python": "3.12.1.final.0"}}

    versions = {"client": found("2026.8.0"), "scheduler": found("2026.8.3"), "workers": {}}
    assert mismatch_of(versions) == ""
    versions["workers"] = {"tcp://10.0.0.7:1": found("2026.6.0")}
    assert mismatch_of(versions) == (
        "tcp://10.0.0.7:1 has distributed 2026.6.0 and Airflow 2026.8.0; install the same"
    )


def test_a_started_cluster_takes_the_place_of_the_connections(connect):
    connect("dask", allow_plain=True)
    assert DaskHook(address="tcp://127.0.0.1:4711").address == "tcp://127.0.0.1:4711"
