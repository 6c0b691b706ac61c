"""Three nights, driven by Airflow's own scheduler: nothing new, two new sections, one re-imaged.

The sections come through `ingest_sections`; at the end `verify_volume` looks at everything.
"""

import time

import numpy as np
import pytest
from distributed import Client
from imagecodecs import png_encode

from alignment.errands.nightly import prepare_update
from alignment.phantom import Phantom, PhantomConfig
from alignment.runs import load
from alignment.stages import ORDER, run_stage
from storage import open_aligned
from storage.commit.verify import verify_volume
from storage.publish import read_pointer, versions
from storage.store import replace_bytes

pytestmark = [pytest.mark.platform, pytest.mark.slow, pytest.mark.timeout(2400)]

DAG_ID = "three_nights"
DAG_FILE = """
from petalign_airflow.facility import nightly_dag

dag = nightly_dag(
    {dag_id!r},
    schedule="* * * * *",
    source={source!r},
    volume={volume!r},
)
"""

CONFIG = {
    "volume": {"aligned_shard": [2, 256, 256], "aligned_chunk": [2, 64, 64]},
    "update": {"junction_sections": 2},
    "match": {"neighbours": 2, "retry_neighbours": 2},
    "coarse": {"neighbours": 2},
}


@pytest.fixture(scope="module")
def images():
    defects = {"fold_section": None, "blank_section": None, "corner_section": None}
    phantom = Phantom(PhantomConfig(sections=12, height=320, width=320, seed=8, **defects))
    return [phantom.section(z) for z in range(12)]


@pytest.fixture
def bucket(platform, monkeypatch):
    for name, value in platform.environment().items():
        monkeypatch.setenv(name, value)
    return f"s3://{platform.bucket}/nights"


def drop(folder: str, images: dict[int, np.ndarray]) -> None:
    """Put images where they arrive."""
    for z, image in images.items():
        replace_bytes(f"{folder}/z{z:06d}.png", png_encode(image))


def run_dag(airflow, dag_id: str, conf: dict[str, object], task_id: str, timeout_s: float = 300):
    """Trigger a DAG by hand, wait for it, and return what its task returned."""
    airflow.wait_for_dag(dag_id)
    run_id = airflow.trigger(dag_id, conf)
    deadline = time.monotonic() + timeout_s
    while (state := airflow.state(dag_id, run_id)) in ("queued", "running"):
        assert time.monotonic() < deadline, f"{dag_id} is {state} after {timeout_s} s"
        time.sleep(1)
    assert state == "success"
    return airflow.returned(dag_id, run_id, task_id)


class Nights:
    """The scheduled runs of the DAG, as Airflow's REST API tells them."""

    def __init__(self, airflow) -> None:
        self._airflow = airflow

    def all(self, kind: str = "scheduled") -> dict[str, dict[str, str]]:
        """Return the states of the tasks of every run of a kind that is over, oldest first."""
        path = f"/api/v2/dags/{DAG_ID}/dagRuns"
        answer = self._airflow._call("GET", path, params={"order_by": "run_after", "limit": 100})
        runs = [run for run in answer["dag_runs"] if run["run_type"] == kind]
        assert [run for run in runs if run["state"] == "failed"] == []
        return {
            run["dag_run_id"]: {
                task.task_id: task.state
                for task in self._airflow.task_states(DAG_ID, run["dag_run_id"])
            }
            for run in runs
            if run["state"] == "success"
        }

    def wait(self, condition, what: str, timeout_s: float = 600):
        """Return what `condition` gives once it is something."""
        deadline = time.monotonic() + timeout_s
        while not (found := condition(self.all())):
            assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
            time.sleep(2)
        return found

    def backfill(self, minutes: int) -> list[dict[str, str]]:
        """Run some nights of last year, two at a time; return the states of their tasks."""
        request = {
            "dag_id": DAG_ID,
            "from_date": "2025-01-01T00:00:00Z",
            "to_date": f"2025-01-01T00:0{minutes - 1}:00Z",
            "run_backwards": False,
            "dag_run_conf": {},
            "reprocess_behavior": "none",
            "max_active_runs": 2,
        }
        self._airflow._call("POST", "/api/v2/backfills", json=request)
        deadline = time.monotonic() + 300
        while len(done := self.all("backfill")) < minutes:
            assert time.monotonic() < deadline, f"{len(done)} of {minutes} old nights are over"
            time.sleep(2)
        return list(done.values())

    def wait_for_an_idle_one(self) -> None:
        """Wait until a night that began from now on is over and did nothing."""
        before = len(self.all())
        self.wait(
            lambda nights: [s for s in list(nights.values())[before:] if is_idle(s)],
            "a night without news",
        )


def is_idle(states: dict[str, str]) -> bool:
    rest = {state for task, state in states.items() if task != "look"}
    return states["look"] == "success" and rest == {"skipped"}


def test_three_nights(platform, bucket, images):
    incoming, source, volume = (f"{bucket}/{name}" for name in ("incoming", "raw", "aligned"))
    arrivals = {"incoming": incoming, "source": source}
    again = np.roll(images[4], 3, axis=1)
    took = {}
    file = platform.config.dags_folder / f"{DAG_ID}.py"
    with platform.airflow() as airflow:
        drop(incoming, dict(enumerate(images[:10])))
        assert run_dag(airflow, "ingest_sections", arrivals, "ingest")["new"] == 10
        first = prepare_update(source, volume, CONFIG)
        with Client(platform.dask_address) as client:
            for stage in ORDER:
                run_stage(stage, first, client)
        file.write_text(DAG_FILE.format(dag_id=DAG_ID, source=source, volume=volume))
        airflow.wait_for_dag(DAG_ID)
        nights = Nights(airflow)
        nights.wait_for_an_idle_one()
        for epoch, news in ((2, {10: images[10], 11: images[11]}), (3, {4: again})):
            assert read_pointer(volume).epoch == epoch - 1
            drop(incoming, news)
            brought = run_dag(airflow, "ingest_sections", arrivals, "ingest")
            assert brought["new"] + brought["replaced"] == len(news)
            began = time.monotonic()
            nights.wait(
                lambda _, epoch=epoch: read_pointer(volume).epoch == epoch, f"version {epoch}"
            )
            took[f"version {epoch}"] = f"{time.monotonic() - began:.0f} s"
            nights.wait_for_an_idle_one()
        every = list(nights.all().values())
        old = nights.backfill(minutes=3)
        file.unlink()
        checked = run_dag(airflow, "verify_volume", {"volume": volume}, "verify")
    assert (len(old), all(map(is_idle, old))) == (3, True), "a backfill finds nothing to do"
    assert checked["damaged"] == 0
    assert checked["objects"] == verify_volume(volume, full=True).objects > 300
    assert [set(s.values()) == {"success"} for s in every if not is_idle(s)] == [True, True]
    keys = [version.run for version in versions(volume)]
    assert (len(keys), len(set(keys)), keys[0]) == (3, 3, load(first).key)
    one, two, three = (open_aligned(volume, at=epoch).values for epoch in (1, 2, 3))
    assert (len(one), len(two), len(three)) == (10, 12, 12)
    np.testing.assert_array_equal(one[:8], two[:8])
    changed = {z for z in range(12) if not np.array_equal(two[z], three[z])}
    assert 4 in changed
    assert changed <= set(range(2, 7)), "the re-imaged section and its junction"
    print(took, f"{len(every)} nights", f"changed by the re-imaged section: {sorted(changed)}")
