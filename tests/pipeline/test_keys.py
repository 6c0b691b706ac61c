"""A unit's key is worth something only if it names everything that the unit reads."""

import shutil

import pytest

from alignment.runs import load, prepare
from alignment.stages import ORDER, inputs, run_stage
from alignment.stages.runner import noted_phases
from alignment.stages.units import Ref
from alignment.stages.work import Work, key_of
from storage import ledger
from storage.commit import manifest, records
from storage.commit.verify import verify_run
from storage.journal import Journal, journal
from storage.publish import read_pointer, rollback, versions
from storage.uri import local_path

from .conftest import CONFIG


def owners(run_uri):
    """The unit that wrote each object, by path."""
    return {
        stored.path: (stage, line.phase, line.unit)
        for stage in manifest.sealed_stages(run_uri)
        for line in manifest.read_lines(run_uri, stage)
        for stored in line.objects
    }


def reads(unit, work):
    """Paths below the run that a unit reads, when nothing is cached."""
    for cached in (inputs.missing, inputs.coarse, load):
        cached.cache_clear()
    with journal() as noted:
        work.do(unit, run_uri=work.run_uri)
    prefix = work.run_uri + "/"
    own = {entry.uri for entry in noted.written}  # read back, because they are there already
    return {uri.removeprefix(prefix) for uri in noted.read - own if uri.startswith(prefix)}


def is_declared(path, declared, owner):
    """Whether one of the inputs covers an object or a record."""
    if path == "run.json" or path.endswith("zarr.json"):
        return True  # made from the settings, which are in the key by themselves
    if path.startswith(f"{records.FOLDER}/"):
        stage, phase, unit = path.removesuffix(".json").split("/")[1:]
        is_about_missing = (stage, phase) == ("masks", "sections")
        facts = [item for item in declared if isinstance(item, str)]
        if is_about_missing and any(fact.startswith("missing") for fact in facts):
            return True
        if (stage, phase) == ("coarse", "solve") and any(f.startswith("canvas") for f in facts):
            return True  # places are named one by one
        # Records tell which sections are missing to whoever lists the pairs; a unit's own pair is
        # its name.
        return is_about_missing or any(ref[:3] == (stage, phase, unit) for ref in refs(declared))
    return any(ref[:3] == owner.get(path) and path.startswith(ref.below) for ref in refs(declared))


def refs(declared):
    return [item for item in declared if isinstance(item, Ref)]


@pytest.mark.parametrize("stage", ORDER[1:-1])
def test_units_read_nothing_that_their_keys_do_not_name(aligned_run, stage):
    owner, seen = owners(aligned_run), 0
    for phase in noted_phases(stage, load(aligned_run), Journal()):
        if phase.always or not phase.units:
            continue
        work = Work.of(stage, phase, load(aligned_run))
        for unit in {phase.units[0], phase.units[len(phase.units) // 2], phase.units[-1]}:
            declared = list(phase.inputs(unit, run_uri=aligned_run))
            read = reads(unit, work)
            seen += sum(path in owner for path in read)
            undeclared = [path for path in sorted(read) if not is_declared(path, declared, owner)]
            assert undeclared == [], f"{stage}/{phase.name}/{unit.label}"
    assert seen or stage == "pyramid"  # the phantom is too small for a second level


def test_the_key_in_the_record_is_that_of_the_unit(aligned_run):
    for stage in ("masks", "match", "render"):
        for phase in noted_phases(stage, load(aligned_run), Journal()):
            work = Work.of(stage, phase, load(aligned_run))
            commits = records.read_commits(aligned_run, stage, phase.name)
            for unit in phase.units[:3]:
                assert commits[unit.label].key == key_of(unit, work)


def test_another_setting_is_computed_from_its_stage_on_and_the_rest_taken_over(
    phantom, aligned_run, cluster
):
    volume = load(aligned_run).volume_uri
    run_uri = prepare(phantom, volume, {**CONFIG, "relax": {"stiffness": 2.0}})
    for stage in ORDER:
        run_stage(stage, run_uri, cluster)
    touched = ORDER[ORDER.index("relax") :]
    for stage in manifest.sealed_stages(run_uri):
        units = {(line.phase, line.unit): line for line in manifest.read_lines(run_uri, stage)}
        state = ledger.read_state(run_uri, stage)
        assert state.blocks_reused == (0 if stage in touched else state.blocks_total)
        for line in manifest.read_lines(aligned_run, stage):
            if line.unit and stage != "qc":
                is_same = units[line.phase, line.unit].key == line.key
                assert is_same == (stage not in touched), line
    assert verify_run(run_uri, full=True).problems == ()
    assert read_pointer(volume).epoch == 2

    # Back to the first setting: it is there, and nothing is computed or taken over.
    rollback(volume)
    assert [v.run for v in versions(volume)] == [
        aligned_run.rpartition("/")[2],
        run_uri.rpartition("/")[2],
        aligned_run.rpartition("/")[2],
    ]


def test_a_damaged_unit_of_the_base_is_computed_instead(phantom, aligned_run, cluster, tmp_path):
    folder = local_path(load(aligned_run).volume_uri)
    copied = tmp_path / folder.name
    shutil.copytree(folder, copied)
    base = copied / "runs" / aligned_run.rpartition("/")[2]
    shard = base / "sections/0/c/4/0/0"
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    run_uri = prepare(phantom, copied.as_uri(), {**CONFIG, "masks": {"grow_px": 5}})
    assert run_stage("ingest", run_uri, cluster) == 8
    assert ledger.read_state(run_uri, "ingest").blocks_reused == 7
    assert verify_run(run_uri, full=True).problems == ()
    assert manifest.read_seal(run_uri, "ingest") == manifest.read_seal(aligned_run, "ingest")
