"""Where the embedded platform lives, and what it may use."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from alignment.config import Config
from alignment.errors import ConfigError
from alignment.platform.machine import usable_cores, usable_memory_bytes

Port = Annotated[int, Field(ge=1024, le=65_535)]

GIB = 2**30
S3_REGION = "us-east-1"
"""SeaweedFS knows no regions, but signatures name one."""
S3_INTERNAL_PORTS = 7
"""Master, volume and filer over HTTP and gRPC, and the S3 gateway's gRPC."""

VARIABLES = {
    "PETALIGN_HOME": "home",
    "PETALIGN_BUCKET": "bucket",
    "PETALIGN_S3_PORT": "s3_port",
    "PETALIGN_S3_INTERNAL_PORT": "s3_internal_port",
    "PETALIGN_S3_ORIGINS": "s3_origins",
    "PETALIGN_DASK_PORT": "dask_port",
    "PETALIGN_DASK_DASHBOARD_PORT": "dask_dashboard_port",
    "PETALIGN_DASK_WORKERS": "dask_workers",
    "PETALIGN_WORKER_MEMORY_GIB": "worker_memory_gib",
    "PETALIGN_AIRFLOW_PORT": "airflow_port",
    "PETALIGN_AIRFLOW_TASKS": "airflow_tasks",
    "PETALIGN_DAGS": "dags_folder",
    "PETALIGN_PLUGINS": "plugins_folder",
}
"""The environment variable of each setting."""


def checkout() -> Path | None:
    """Return the folder of the checkout this package runs from, or None if it is installed."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "pyproject.toml").is_file() else None


def default_home() -> Path:
    """Return ``.petalign`` in the checkout, or else in the user's home folder."""
    return (checkout() or Path.home()) / ".petalign"


def default_workers() -> int:
    """Return one worker a core; at least two, so that one is left when one dies."""
    return max(usable_cores(), 2)


def _airflow_folder(name: str) -> Path:
    root = checkout()
    return root / name if root else Path(__file__).parent / "airflow_home" / name


class PlatformConfig(Config):
    """Everything the embedded platform can be told. All services listen on 127.0.0.1 only."""

    home: Path = Field(default_factory=default_home)
    """The one folder below which everything is kept: data, metadata, credentials, logs."""
    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$")] = "petalign"
    """The bucket of the S3 server; anyone on this machine may read it, only its owner write."""
    s3_port: Port = 28_333
    """Where the S3 server listens."""
    s3_internal_port: Annotated[int, Field(ge=1024, le=65_536 - S3_INTERNAL_PORTS)] = 28_340
    """The first of seven ports in a row that the parts of the S3 server talk over."""
    s3_origins: tuple[str, ...] = ("*",)
    """Web pages that may read the bucket (CORS), as exact origins; ``*`` is every page, which
    Neuroglancer needs when it is served from a changing port."""
    dask_port: Port = 28_786
    """Where the Dask scheduler listens."""
    dask_dashboard_port: Port = 28_787
    """Where the Dask scheduler shows its dashboard."""
    dask_workers: Annotated[int, Field(ge=1, le=1024)] = Field(default_factory=default_workers)
    """Worker processes, one thread each."""
    worker_memory_gib: Annotated[float, Field(ge=0.25, le=4096)] = Field(
        default_factory=lambda data: worker_memory_gib(data.get("dask_workers", 1))
    )
    """A worker that comes to need more is replaced, and its block runs again."""
    airflow_port: Port = 28_080
    """Where Airflow shows its pages and takes requests."""
    airflow_tasks: Annotated[int, Field(ge=1, le=64)] = 4
    """Airflow tasks at a time; they only start and watch work on Dask."""
    dags_folder: Path = Field(default_factory=lambda: _airflow_folder("dags"))
    """Where Airflow finds the DAG files."""
    plugins_folder: Path = Field(default_factory=lambda: _airflow_folder("plugins"))
    """Where Airflow finds its plugins."""

    @field_validator("home", "dags_folder", "plugins_folder")
    @classmethod
    def _absolute(cls, path: Path) -> Path:
        return path.expanduser().absolute()

    @field_validator("s3_origins", mode="before")
    @classmethod
    def _origins(cls, value: object) -> object:
        return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _ports_differ(self) -> Self:
        owner: dict[int, str] = {}
        for setting, port in self.ports():
            if port in owner:
                raise ValueError(
                    f"port {port} is asked for by both {variable_of(owner[port])} and "
                    f"{variable_of(setting)}; choose another for one of them"
                )
            owner[port] = setting
        return self

    def ports(self) -> list[tuple[str, int]]:
        """Return every port that must be free, with the name of the setting it comes from."""
        names = ("s3_port", "dask_port", "dask_dashboard_port", "airflow_port")
        internal = range(self.s3_internal_port, self.s3_internal_port + S3_INTERNAL_PORTS)
        return [
            *((name, int(getattr(self, name))) for name in names),
            *(("s3_internal_port", port) for port in internal),
        ]

    @property
    def s3_endpoint(self) -> str:
        """The URL of the S3 server."""
        return f"http://127.0.0.1:{self.s3_port}"

    @property
    def dask_address(self) -> str:
        """The address of the Dask scheduler."""
        return f"tcp://127.0.0.1:{self.dask_port}"

    @property
    def dask_dashboard_url(self) -> str:
        """The page of the Dask dashboard."""
        return f"http://127.0.0.1:{self.dask_dashboard_port}/status"

    @property
    def airflow_url(self) -> str:
        """The URL of Airflow's pages and of its REST API."""
        return f"http://127.0.0.1:{self.airflow_port}"


def worker_memory_gib(workers: int) -> float:
    """Return what each of `workers` may use: two thirds of the memory is for them."""
    return max(round(usable_memory_bytes() * 2 / 3 / max(workers, 1) / GIB, 2), 0.5)


def variable_of(setting: str) -> str:
    """Return the environment variable of a setting.

    >>> variable_of("dask_port")
    'PETALIGN_DASK_PORT'
    """
    return next(variable for variable, name in VARIABLES.items() if name == setting)


def platform_config(environ: Mapping[str, str]) -> PlatformConfig:
    """Return the configuration that the environment variables of `VARIABLES` ask for.

    Raises
    ------
    ConfigError
        One line per fault: the variable, what it must be, and what came.
    """
    given = {
        name: environ[variable] for variable, name in VARIABLES.items() if environ.get(variable)
    }
    try:
        return PlatformConfig.model_validate(given)
    except ValidationError as error:
        raise ConfigError("\n".join(_faults(error))) from None


def _faults(error: ValidationError) -> list[str]:
    lines = []
    for fault in error.errors():
        if fault["type"] == "default_factory_not_called":  # follows from another fault
            continue
        message = fault["msg"].removeprefix("Value error, ")
        if fault["loc"]:
            message = f"{variable_of(str(fault['loc'][0]))}={fault['input']!r}: {message}"
        lines.append(message)
    return lines
