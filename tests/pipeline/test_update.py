"""Updates: what a new, changed or removed section touches is computed again, and nothing else."""

from __future__ import annotations

import copy
import re

import numpy as np
import pytest
import tifffile

from alignment.changes import Changes, compare, find_changes
from alignment.commands.lineage import lineage_of, touched_by
from alignment.errors import DataError
from alignment.phantom import Phantom, PhantomConfig
from alignment.planning.rehearsal import rehearse
from alignment.runs import definition, load, prepare
from alignment.stages import ORDER, run_stage
from alignment.stages.publish import publish_run
from alignment.stages.units import Whole
from storage import open_aligned
from storage.commit import manifest
from storage.commit.verify import verify_volume
from storage.publish import read_pointer, rollback

CONFIG = {
    "volume": {"aligned_shard": [2, 256, 256], "aligned_chunk": [2, 64, 64]},
    "update": {"junction_sections": 2},
    "match": {"neighbours": 2, "retry_neighbours": 2},
    "coarse": {"neighbours": 2},
}


@pytest.fixture(scope="module")
def images():
    defects = {"fold_section": None, "blank_section": 2, "corner_section": None}
    phantom = Phantom(PhantomConfig(sections=14, height=320, width=320, seed=8, **defects))
    return [phantom.section(z) for z in range(14)]


def write(folder, images):
    folder.mkdir(exist_ok=True)
    for path in sorted(folder.iterdir())[len(images) :]:
        path.unlink()
    for z, image in enumerate(images):
        path = folder / f"section{z:03d}.tif"
        if not path.exists() or not np.array_equal(tifffile.imread(path), image):
            tifffile.imwrite(path, image)


def align(source, volume, cluster, *, config=CONFIG, update=True):
    run_uri = prepare(str(source), str(volume), config, update=update)
    for stage in ORDER:
        run_stage(stage, run_uri, cluster)
    return run_uri


def objects(run_uri, stage):
    return {
        stored.path: stored.blake3
        for line in manifest.read_lines(run_uri, stage)
        for stored in line.objects
    }


def changed_shards(before, after):
    """First sections of the aligned shards that differ."""
    one, other = (objects(uri, "render") for uri in (before, after))
    paths = [path for path in one.keys() | other.keys() if path.startswith("aligned/0/c/")]
    return {2 * int(path.split("/")[3]) for path in paths if one.get(path) != other.get(path)}


@pytest.fixture(scope="module")
def first(images, cluster, tmp_path_factory):
    """Twelve sections, published."""
    folder = tmp_path_factory.mktemp("update")
    write(folder / "raw", images[:12])
    return folder, align(folder / "raw", folder / "out", cluster)


def test_nothing_new_is_the_published_run_itself(first):
    folder, run_uri = first
    assert load(run_uri).base is None
    assert prepare(str(folder / "raw"), str(folder / "out"), CONFIG, update=True) == run_uri


def computed(before, after):
    """Units of run `after` that were not taken over from `before`, but those that keep fields."""
    one, other = (
        {
            (stage, line.phase, line.unit): line.key
            for stage in ORDER[:-1]
            for line in manifest.read_lines(uri, stage)
            if line.unit and (stage, line.phase) != ("relax", "kept")
        }
        for uri in (before, after)
    )
    return {name for name in other if one.get(name) != other[name]}


@pytest.fixture(scope="module")
def second(first, images, cluster):
    """Two more sections, as an update; and what was planned of it."""
    folder, before = first
    write(folder / "raw", images)
    planned = rehearse(str(folder / "raw"), before, CONFIG)
    after = align(folder / "raw", folder / "out", cluster)
    return before, after, planned


def test_new_sections_at_the_end_touch_only_the_junction(first, second):
    folder, _ = first
    before, after, _ = second
    base = load(after).base
    assert (base.run, base.places) == (before.rpartition("/")[2], frozenset(range(12)))
    assert base.fields == frozenset(range(10))
    assert changed_shards(before, after) == {10, 12}
    both = [open_aligned(folder / "out", at=at).values for at in (1, 2)]
    np.testing.assert_array_equal(both[0][:10], both[1][:10])
    assert both[1].shape[0] == 14
    assert verify_volume((folder / "out").as_uri(), full=True, runs="all").problems == ()


def test_what_is_computed_is_what_was_planned(second):
    before, after, planned = second
    # Whether misplaced sections are looked for farther away, only results tell.
    asked_for = {name for name in computed(before, after) if name[:2] != ("coarse", "far")}
    assert asked_for == planned.done()
    causes = {cause for unit in planned.units for cause in unit.causes}
    assert causes >= {"new section012", "new section013"}
    assert planned.changes.new == ("section012", "section013")


def test_changes_are_told_by_name(second, first):
    folder, run_uri = first[0], second[1]
    before = definition(run_uri)
    now = copy.deepcopy(before)
    now["section_names"] = [*before["section_names"][:13], "section014"]
    now["source"]["sections"] = [*before["source"]["sections"][:13], "a"]
    now["source"]["sections"][4] = "other"
    now["config"]["relax"]["stiffness"] = 4.0
    now["stages"]["match"] = "newer"
    found = compare("0123", before, now)
    assert found.as_dict() == {
        "base": "0123",
        "new": ("section014",),
        "changed": ("section004",),
        "removed": ("section013",),
        "moved": (),
        "settings": ("relax.stiffness",),
        "code": ("match",),
        "is_empty": False,
    }
    newer = {**before, "stages": {**before["stages"], "match": "newer"}}
    assert compare("0123", before, newer).is_empty
    assert find_changes(str(folder / "raw"), str(folder / "out"), CONFIG) == Changes(
        run_uri.rpartition("/")[2]
    )
    assert find_changes(str(folder / "raw"), str(folder / "none"), CONFIG).new == tuple(
        before["section_names"]
    )


def test_a_shard_knows_what_it_was_made_from(second):
    before, after, _ = second
    found = lineage_of(after, (11, 100.0, 200.0))
    assert found.unit[:2] == ("render", "shards")
    assert found.epochs == (2,)
    assert objects(after, "render").items() >= found.objects.items()
    names = {section["name"] for section in found.sections}
    assert names >= {"section010", "section011", "section012", "section013"}
    assert found.settings["relax"]["stiffness"] == load(after).config.relax.stiffness
    assert found.code["match"] == definition(after)["stages"]["match"]
    assert [model.split()[0] for model in found.models] == ["engine", "model"]
    assert found.kept_from == before.rpartition("/")[2]
    alone = lineage_of(after, (0, 0.0, 0.0))
    assert alone.units["relax"] == 2  # both sections' fields were kept
    with pytest.raises(DataError, match="does not hold"):
        lineage_of(after, (14, 0.0, 0.0))


def test_a_section_knows_what_it_has_a_part_in(second):
    _, after, _ = second
    found = touched_by(after, 13)
    shards = {re.search(r"_z(\d+)_", name)[1] for name in found["render"]}
    assert set(map(int, shards)) == {10, 12}
    assert "kept/z000003" not in found["relax"]
    with pytest.raises(DataError, match="section 14 does not exist"):
        touched_by(after, 14)


def test_an_update_of_what_was_replaced_meanwhile_is_not_published(first, second):
    folder, _ = first
    before, after, _ = second
    volume = (folder / "out").as_uri()
    changed = {**CONFIG, "relax": {"stiffness": 4.0}}
    run_uri = prepare(str(folder / "raw"), volume, changed, update=True)
    assert load(run_uri).base.run == load(after).key
    rollback(volume, load(before).key)
    with pytest.raises(DataError, match="Start the update again"):
        publish_run(Whole(), run_uri=run_uri)
    assert read_pointer(volume).run == load(before).key
    rollback(volume, load(after).key)
