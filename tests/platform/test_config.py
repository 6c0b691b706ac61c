import os
from pathlib import Path

import pytest

from alignment.errors import ConfigError
from alignment.platform.config import (
    S3_INTERNAL_PORTS,
    VARIABLES,
    PlatformConfig,
    checkout,
    platform_config,
)
from alignment.platform.machine import usable_cores, usable_memory_bytes


def test_every_setting_has_a_variable():
    assert set(VARIABLES.values()) == set(PlatformConfig.model_fields)
    assert all(name.startswith("PETALIGN_") for name in VARIABLES)


def test_variables_set_what_they_name():
    config = platform_config(
        {
            "PETALIGN_HOME": "/data/petalign",
            "PETALIGN_DASK_PORT": "9001",
            "PETALIGN_S3_ORIGINS": "http://localhost:8000, https://example.org",
            "PETALIGN_WORKER_MEMORY_GIB": "1.5",
            "PETALIGN_AIRFLOW_PORT": "",
            "UNRELATED": "1",
        }
    )
    assert config.home == Path("/data/petalign")
    assert config.dask_address == "tcp://127.0.0.1:9001"
    assert config.s3_origins == ("http://localhost:8000", "https://example.org")
    assert config.worker_memory_gib == 1.5
    assert config.airflow_port == PlatformConfig().airflow_port


def test_everything_lies_in_the_checkout_when_there_is_one():
    root = checkout()
    assert root is not None
    config = platform_config({})
    assert config.home == root / ".petalign"
    assert config.dags_folder == root / "dags"
    assert config.plugins_folder == root / "plugins"


def test_an_installed_package_keeps_its_state_in_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setattr("alignment.platform.config.checkout", lambda: None)
    monkeypatch.setenv("HOME", str(tmp_path))
    config = platform_config({})
    assert config.home == tmp_path / ".petalign"
    assert config.dags_folder.parts[-4:] == ("alignment", "platform", "airflow_home", "dags")


def test_a_wrong_value_is_named_with_its_variable():
    with pytest.raises(ConfigError) as error:
        platform_config({"PETALIGN_S3_PORT": "80", "PETALIGN_DASK_WORKERS": "many"})
    first, second = str(error.value).splitlines()
    assert first.startswith("PETALIGN_S3_PORT='80': ")
    assert "1024" in first
    assert second.startswith("PETALIGN_DASK_WORKERS='many': ")


def test_two_services_cannot_share_a_port():
    inside = PlatformConfig().s3_internal_port + S3_INTERNAL_PORTS - 1
    with pytest.raises(ConfigError, match="PETALIGN_AIRFLOW_PORT and PETALIGN_S3_INTERNAL_PORT"):
        platform_config({"PETALIGN_AIRFLOW_PORT": str(inside)})
    assert platform_config({"PETALIGN_AIRFLOW_PORT": str(inside + 1)})


def test_workers_leave_a_third_of_the_memory_to_the_services():
    config = PlatformConfig(dask_workers=4)
    total_gib = usable_memory_bytes() / 2**30
    assert config.worker_memory_gib * 4 == pytest.approx(total_gib * 2 / 3, abs=0.05)


def test_one_worker_is_left_when_one_dies():
    assert PlatformConfig().dask_workers >= 2


def test_the_limits_of_a_container_count(tmp_path):
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    (tmp_path / "memory.max").write_text(f"{2**30}\n")
    assert usable_cores(tmp_path) == 1
    assert usable_memory_bytes(tmp_path) == 2**30


def test_without_a_container_the_machine_counts(tmp_path):
    (tmp_path / "cpu.max").write_text("max 100000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert usable_cores(tmp_path) == len(os.sched_getaffinity(0))
    assert usable_memory_bytes(tmp_path) > 2**28
