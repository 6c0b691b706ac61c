"""Who takes part in a training."""

import json

import pytest

from inference.errors import ConfigError
from inference.training.cluster import Place, joined_cluster, local_cluster


def test_alone_there_are_no_addresses():
    for mode, workers in (("local", 1), ("mirrored", 3)):
        cluster = local_cluster(mode, workers)
        assert cluster.places == (Place("worker", 0),)
        assert cluster.tf_config(Place("worker", 0)) is None


def test_each_process_has_an_address_of_its_own_and_the_first_writes():
    cluster = local_cluster("async", 3)
    assert cluster.places[0] == Place("chief", 0)
    assert cluster.places[1:] == (*(Place("worker", k) for k in range(3)), Place("ps", 0))
    addresses = [a for found in cluster.addresses.values() for a in found]
    assert len(set(addresses)) == 5
    told = json.loads(cluster.tf_config(Place("ps", 0)))
    assert told["task"] == {"type": "ps", "index": 0}
    assert {role: len(found) for role, found in told["cluster"].items()} == {
        "chief": 1, "worker": 3, "ps": 1,
    }  # fmt: skip
    assert local_cluster("sync", 2).places == (Place("worker", 0), Place("worker", 1))


def test_local_training_has_one_worker():
    with pytest.raises(ConfigError, match="choose mirrored, sync or async for more"):
        local_cluster("local", 2)


def test_a_group_that_others_have_started_is_joined():
    told = {"cluster": {"worker": ["a:1", "b:2"]}, "task": {"type": "worker", "index": 1}}
    cluster, place = joined_cluster("sync", 2, json.dumps(told))
    assert (place, cluster.addresses) == (Place("worker", 1), {"worker": ("a:1", "b:2")})
    assert json.loads(cluster.tf_config(place)) == told
    with pytest.raises(ConfigError, match="has 2 workers, and --workers says 3"):
        joined_cluster("sync", 3, json.dumps(told))
    with pytest.raises(ConfigError, match="mode=sync, not async"):
        joined_cluster("async", 2, json.dumps(told))
    for nothing in ("", "{}", "[]", '{"cluster": {"worker": []}}'):
        with pytest.raises(ConfigError, match="gang: true sets it"):
            joined_cluster("sync", 2, nothing)
