import stat

import pytest

from alignment.platform.credentials import ensure_credentials, read_credentials
from alignment.platform.environment import environment, lend_connection, without_proxy
from alignment.platform.errors import PlatformError
from alignment.platform.lifecycle import down, info
from alignment.platform.state import Home, last_lines, read_state


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path / "home")
    home.create()
    return home


def test_secrets_are_made_once_and_only_their_owner_reads_them(home):
    first = ensure_credentials(home)
    assert ensure_credentials(home) == first == read_credentials(home)
    assert stat.S_IMODE(home.credentials.stat().st_mode) == 0o600
    assert stat.S_IMODE(home.folder.stat().st_mode) == 0o700


def test_two_platforms_have_different_secrets(tmp_path):
    homes = [Home(tmp_path / name) for name in ("a", "b")]
    for home in homes:
        home.create()
    first, second = (ensure_credentials(home).model_dump() for home in homes)
    assert {name for name in first if first[name] == second[name]} == {"airflow_user"}


def test_damaged_secrets_are_reported_with_a_way_out(home):
    home.credentials.write_text("{")
    with pytest.raises(PlatformError, match="delete it and run `petalign up`"):
        ensure_credentials(home)


def test_git_does_not_see_the_home(home):
    assert (home.folder / ".gitignore").read_text() == "*\n"


def test_a_home_that_cannot_be_made_names_the_setting(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PlatformError, match="PETALIGN_HOME"):
        Home(tmp_path / "file" / "home").create()


def test_a_platform_that_was_never_up(config):
    with pytest.raises(PlatformError, match="petalign up"):
        environment(config)
    environ: dict[str, str] = {}
    assert not lend_connection(environ, config)
    assert environ == {}
    assert info(config) is None
    assert down(config) == []
    assert not config.home.exists()


def test_a_state_of_another_version_is_not_guessed(home):
    home.state.write_text('{"version": 99}')
    with pytest.raises(PlatformError, match="not of this version"):
        read_state(home)


def test_requests_to_this_machine_avoid_the_proxy():
    added = without_proxy({"no_proxy": "localhost,example.org"})
    assert added == dict.fromkeys(("NO_PROXY", "no_proxy"), "localhost,example.org,127.0.0.1")


def test_the_end_of_a_log_begins_with_the_last_start(tmp_path):
    log = tmp_path / "x.log"
    assert last_lines(log) == "(no log)"
    log.write_text("\n--- started 2026-01-01 00:00:00 ---\nold\n\n--- started later ---\n")
    assert last_lines(log) == "(the log is empty)"
    with log.open("a") as file:
        file.writelines(f"line {n}\n" for n in range(30))
    assert last_lines(log, 2) == "line 28\nline 29"
    assert "old" not in last_lines(log, 100)
