from alignment.driving.states import summed
from storage.ledger import StageState


def test_seconds_are_those_in_which_a_driver_was_at_work():
    slabs = [
        StageState("match.z0", "done", seconds=10, heartbeat=110),
        StageState("match.z1", "done", seconds=10, heartbeat=115),
        StageState("match.z2", "done", seconds=5, heartbeat=205),
    ]
    whole = StageState("match", "done", seconds=1, heartbeat=206)
    assert summed(whole, slabs).seconds == 15 + 5 + 1
