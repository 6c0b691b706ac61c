"""What Airflow itself makes of the provider, the plugin file and the links."""

import json
from importlib.metadata import entry_points
from importlib.resources import files
from types import SimpleNamespace

import jsonschema
import pytest
from airflow._shared.module_loading import find_path_from_directory, import_string

from petalign_airflow.hooks import DaskHook
from petalign_airflow.links import DashboardLink, ReportLink, ViewerLink
from petalign_airflow.operators import PrepareRunOperator, RunStageOperator
from petalign_airflow.provider import get_provider_info
from tests.plugins.airflow_home import ROOT

pytestmark = pytest.mark.filterwarnings(  # Airflow's own use of pathspec
    "ignore:GitWildMatchPattern:DeprecationWarning"
)


def test_airflow_finds_the_provider_by_its_entry_point():
    (entry,) = [
        e for e in entry_points(group="apache_airflow_provider") if e.dist.name == "petalign"
    ]
    assert entry.load()() == get_provider_info()


def test_the_provider_says_what_airflow_wants_to_know():
    schema = json.loads((files("airflow") / "provider_info.schema.json").read_text())
    jsonschema.validate(get_provider_info(), schema)
    strict = json.loads((files("airflow") / "provider.yaml.schema.json").read_text())
    rules = strict["properties"]["connection-types"]
    jsonschema.validate(get_provider_info()["connection-types"], rules)


def test_every_class_that_the_provider_names_exists():
    info = get_provider_info()
    (connection,) = info["connection-types"]
    assert import_string(connection["hook-class-name"]) is DaskHook
    assert connection["connection-type"] == DaskHook.conn_type
    assert connection["hook-name"] == DaskHook.hook_name
    links = {type(link) for link in (*RunStageOperator.operator_extra_links,)}
    assert {import_string(path) for path in info["extra-links"]} == links


def test_airflow_loads_one_file_of_the_folder_and_replaces_no_package_of_ours():
    """It executes every file that is not ignored and registers it under its bare name."""
    found = find_path_from_directory(str(ROOT / "plugins"), ".airflowignore", "glob")
    assert [*found] == [str(ROOT / "plugins" / "petalign_plugin.py")]


def test_the_plugin_registers_every_link():
    from airflow.plugins_manager import _get_plugins

    plugins, errors = _get_plugins()
    assert not errors
    (plugin,) = [plugin for plugin in plugins if plugin.name == "petalign"]
    assert {type(link) for link in plugin.operator_extra_links} == {
        ReportLink,
        ViewerLink,
        DashboardLink,
    }


def task(stage: str) -> SimpleNamespace:
    return SimpleNamespace(
        stage=stage,
        run_uri="s3://petalign/out/runs/0123",
        dask_conn_id="dask_default",
        address="",
    )


@pytest.mark.parametrize(
    ("link", "stage", "url"),
    [
        (ReportLink(), "qc", "http://s3:8333/petalign/out/runs/0123/report.html"),
        (ReportLink(), "publish", "http://s3:8333/petalign/out/runs/0123/report.html"),
        (ReportLink(), "match", ""),
        (ViewerLink(), "publish", "http://s3:8333/petalign/out"),
        (ViewerLink(), "qc", ""),
        (DashboardLink(), "match", "http://dask:8787/status"),
    ],
)
def test_a_link_leads_somewhere_once_there_is_something(monkeypatch, connect, link, stage, url):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://s3:8333")
    monkeypatch.delenv("PETALIGN_VIEWER_URL", raising=False)
    connect("dask")
    assert link.get_link(task(stage), ti_key=None) == url


def test_a_local_viewer_is_preferred(monkeypatch):
    monkeypatch.setenv("PETALIGN_VIEWER_URL", "http://127.0.0.1:9999/v/1/")
    assert ViewerLink().get_link(task("publish"), ti_key=None) == "http://127.0.0.1:9999/v/1/"


def test_preparing_links_to_the_dashboard_alone():
    assert [type(link) for link in PrepareRunOperator.operator_extra_links] == [DashboardLink]
