"""The figures of a soak, on one that is written down by hand."""

from __future__ import annotations

import pytest

from tests.chaos.counting import Start
from tests.chaos.injuries import Injury
from tests.chaos.judge import Verdict
from tests.chaos.plan import WEIGHTS, schedule
from tests.chaos.runs import Run
from tests.chaos.tally import Soak, figures, markdown, recovery_s, repeats
from tests.faults.fault import Fault, Operation

ONE, TWO = "s3://bucket/soak/volume000", "s3://bucket/soak/volume001"


def soak(**changes) -> Soak:
    struck = Fault("reset", struck=[Operation("GET", "raw/zarr.json")])
    planned = [
        Injury(10.0, "kill worker", "pid 1", (ONE, TWO)),
        Injury(20.0, "S3: reset", "", (ONE,), struck),
        Injury(30.0, "S3: reset", "", (ONE,), Fault("reset")),
    ]
    runs = [
        Run(ONE, 0, "a", 0.0, ended=40.0, state="success"),
        Run(TWO, 1, "b", 0.0, ended=50.0, state="success", reds=["match"]),
    ]
    noted = {
        "seed": 3, "seconds": 60.0, "planned": planned, "missed": 1, "runs": runs,
        "verdicts": {ONE: Verdict(True, (), 2), TWO: Verdict(True, (), 2)},
        "starts": [Start(5, ONE, "a"), Start(11, ONE, "a"), Start(6, ONE, "b"), Start(7, TWO, "a")],
        "progress": {"soak/volume000": [5.5, 12.0], "soak/volume001": [8.0, 25.0]}, "acts": {},
    }  # fmt: skip
    return Soak(**(noted | changes))


def test_a_fault_that_met_no_request_does_not_count():
    assert [injury.at for injury in soak().injuries] == [10.0, 20.0]


def test_a_second_start_of_a_unit_is_put_down_to_the_last_fault():
    (repeat,) = repeats(soak())
    assert (repeat.start, repeat.after) == (Start(11, ONE, "a"), soak().planned[0])


def test_recovery_is_that_of_the_slowest_run_that_was_under_way():
    assert recovery_s(soak(), soak().planned[0]) == 15.0


def test_a_run_that_ends_has_recovered():
    assert recovery_s(soak(), soak().planned[1]) == 20.0


def test_figures_count_each_kind_and_all():
    by_kind = {told.kind: told for told in figures(soak())}
    assert set(by_kind) == {"kill worker", "S3: reset", ""}
    killed, everything = by_kind["kill worker"], by_kind[""]
    assert (killed.injected, killed.runs, killed.identical, killed.silent) == (1, 2, 2, 0)
    assert killed.again_percent == pytest.approx(100 / 3)
    assert (everything.injected, everything.identical, everything.worst_s) == (2, 2, 20.0)
    assert soak().is_good


def test_a_run_said_to_be_done_that_differs_is_silent_and_named():
    bad = soak(verdicts={ONE: Verdict(True), TWO: Verdict(False, ("digest: shard 3",))})
    assert not bad.is_good
    assert figures(bad)[-1].silent == 1
    assert f"{TWO}: digest: shard 3" in markdown(bad)


def test_a_run_that_did_not_end_is_no_good_and_named():
    so_far = {ONE: Verdict(True, (), 7)}
    stuck = soak(runs=[Run(ONE, 0, "a", 0.0)], verdicts={}, unfinished=so_far)
    assert not stuck.is_good
    assert f"{ONE} did not end; its 7 units so far: as they should be" in markdown(stuck)


def test_a_schedule_is_its_seeds_and_strikes_with_everything():
    planned = schedule(1, 1800, 7.5)
    assert planned == schedule(1, 1800, 7.5) != schedule(2, 1800, 7.5)
    assert len(planned) > 200
    assert {fault.kind for fault in schedule(1, 10**5, 7.5)} == set(WEIGHTS)
