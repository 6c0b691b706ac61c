"""An Airflow of our own for the tests: its home, metadata and DAG folder are below a new folder.

Airflow reads its environment when it is imported, so importing this module comes first.
"""

import atexit
import os
import shutil
import tempfile
import warnings
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOME = Path(tempfile.mkdtemp(prefix="petalign-airflow-"))
DAGS = HOME / "dags"

# What the developer's shell says about another Airflow, its database above all, must not leak in.
for name in [name for name in os.environ if name.startswith("AIRFLOW")]:
    del os.environ[name]
os.environ |= {
    "AIRFLOW_HOME": str(HOME),
    "AIRFLOW__CORE__DAGS_FOLDER": str(DAGS),
    "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__LOGGING__LOGGING_LEVEL": "WARNING",
    "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{HOME}/airflow.db",
}
atexit.register(shutil.rmtree, HOME, ignore_errors=True)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # Airflow's own, about its dependencies
    import airflow  # noqa: F401


def create_database() -> None:
    """Create the tables; takes some seconds."""
    from airflow.utils.db import initdb

    DAGS.mkdir(exist_ok=True)
    for dag in (ROOT / "dags").glob("*.py"):
        shutil.copy(dag, DAGS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        initdb()
