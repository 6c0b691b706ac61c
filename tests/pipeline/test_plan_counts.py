"""The plan's formulas count what a run leaves, exactly: units, objects, metadata, seals."""

from collections import Counter

import pytest

from alignment.commands.sample import write_phantom
from alignment.phantom import PhantomConfig
from alignment.planning.counts import count_stages
from alignment.planning.outcome import seen
from alignment.runs import load, prepare
from alignment.stages import ORDER, run_stage
from storage import store
from storage.commit import records
from storage.uri import local_path

SMALL = {
    "volume": {
        "section_shard_px": 64,
        "section_chunk_px": 32,
        "aligned_shard": [2, 64, 64],
        "aligned_chunk": [2, 32, 32],
    },
    "masks": {"mip": 0},
    "coarse": {"neighbours": 1},
    "match": {
        "neighbours": 1,
        "retry_neighbours": 0,
        "levels": [{"mip": 1, "template_px": 32, "search_radius_px": 8, "node_spacing_px": 16}],
        "refine": [],
    },
}
AGAIN = {"mip": 0, "template_px": 48, "search_radius_px": 6, "node_spacing_px": 32}
SETTINGS = {
    "least": SMALL,
    "more of all": {
        **SMALL,
        "coarse": {"neighbours": 2},
        "match": {
            **SMALL["match"],
            "neighbours": 2,
            "retry_neighbours": 3,
            "refine": [AGAIN],
            "long_range": [4],
            "long_range_every": 4,
        },
        "relax": {"slab_sections": 4},
        "render": {"normalise": "section"},
    },
    "as shipped": {},
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Six sections without a defect."""
    uri = (tmp_path_factory.mktemp("whole") / "raw.zarr").as_uri()
    none = {"fold_section": None, "blank_section": None, "corner_section": None}
    write_phantom(uri, PhantomConfig(sections=6, height=200, width=216, seed=5, **none))
    return uri


@pytest.fixture(
    scope="module",
    params=["least", *(pytest.param(name, marks=pytest.mark.slow) for name in list(SETTINGS)[1:])],
)
def run(request, source, cluster, tmp_path_factory):
    folder = tmp_path_factory.mktemp("planned")
    run_uri = prepare(source, (folder / "out.zarr").as_uri(), SETTINGS[request.param])
    for stage in ORDER:
        run_stage(stage, run_uri, cluster)
    return load(run_uri)


def test_units_and_objects_are_those_of_the_run(run):
    plan = {count.stage: count for count in count_stages(seen(run))}
    for stage in ORDER:
        commits = [
            commit
            for phase in store.list_names(store.join(run.uri, "commits", stage))
            for commit in records.read_commits(run.uri, stage, phase).values()
        ]
        written = [
            o.path for commit in commits for o in commit.objects if "zarr.json" not in o.path
        ]
        assert (stage, len(commits)) == (stage, plan[stage].units)
        assert (stage, len(written)) == (stage, plan[stage].data_objects)


def test_what_describes_and_seals_is_counted_too(run):
    plan = count_stages(seen(run))
    root = local_path(run.uri)
    found = Counter(
        "manifests" if path.relative_to(root).parts[0] == "manifests" else "zarr.json"
        for path in root.rglob("*")
        if path.is_file() and ("manifests" in path.parts or path.name == "zarr.json")
    )
    assert found["zarr.json"] == sum(count.metadata for count in plan)
    assert found["manifests"] == sum(count.sealing for count in plan)
