import pytest

from alignment.platform import health as health_module
from alignment.platform.health import NotReady


@pytest.mark.parametrize(
    ("health", "complaint"),
    [
        ({"status": "unhealthy", "latest_scheduler_heartbeat": None}, "is unhealthy"),
        (
            {"status": "healthy", "latest_scheduler_heartbeat": "2026-01-01T00:00:00+00:00"},
            "has not reported yet",
        ),
    ],
)
def test_the_last_words_of_a_killed_scheduler_do_not_make_the_next_one_ready(
    config, monkeypatch, health, complaint
):
    monkeypatch.setattr(health_module, "airflow_health", lambda _: {"scheduler": health})
    started = 1_767_225_600.0 + 5  # 2026-01-01, 5 s past midnight
    with pytest.raises(NotReady, match=complaint):
        health_module.expect_airflow(config, "scheduler", started)


def test_a_heartbeat_since_the_start_makes_it_ready(config, monkeypatch):
    health = {"status": "healthy", "latest_scheduler_heartbeat": "2026-01-01T00:00:09+00:00"}
    monkeypatch.setattr(health_module, "airflow_health", lambda _: {"scheduler": health})
    health_module.expect_airflow(config, "scheduler", 1_767_225_600.0 + 5)


def test_a_silent_api_is_no_news_of_the_other_parts(config, monkeypatch):
    health_module.expect_heartbeat(config, "scheduler", 0.0)
    health = {"status": "unhealthy", "latest_scheduler_heartbeat": "2026-01-01T00:00:09+00:00"}
    monkeypatch.setattr(health_module, "airflow_health", lambda _: {"scheduler": health})
    with pytest.raises(NotReady, match="is unhealthy"):
        health_module.expect_heartbeat(config, "scheduler", 0.0)


def test_too_few_workers_are_counted(config, monkeypatch):
    monkeypatch.setattr(health_module, "dask_workers", lambda _: 1)
    with pytest.raises(NotReady, match="1 of 2 workers"):
        health_module.expect_workers(config, 0.0, at_least=2)
    health_module.expect_workers(config, 0.0, at_least=1)


def test_no_answer_is_an_error_that_names_the_port(config):
    with pytest.raises(OSError, match="Connection refused"):
        health_module.dask_workers(config)
    health_module.warm_up_airflow(config)  # nothing to warm up is no error
