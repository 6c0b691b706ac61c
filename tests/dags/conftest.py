"""The same Airflow and the same cluster as the tests of the plugins."""

from importlib.util import find_spec

if find_spec("airflow") is None:
    collect_ignore_glob = ["*"]
else:
    from tests.plugins.conftest import airflow_database, connect, scheduler_address

    __all__ = ["airflow_database", "connect", "scheduler_address"]
