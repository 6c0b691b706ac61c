"""A network over a published volume: what it gives, and what a second time does."""

from __future__ import annotations

import numpy as np
import pytest

from alignment.errors import ConfigError, StageFailed
from alignment.predicting.driver import run_prediction
from alignment.predicting.runs import prepare
from alignment.stages import work
from alignment.stages.repair import repair
from inference.backends.files import load_network
from storage import ledger, open_prediction
from storage.commit import manifest, records
from storage.commit.verify import verify_volume
from storage.errors import CorruptError, MissingError
from storage.publish import read_pointer, versions
from storage.store import delete, join, read_bytes, replace_bytes
from tests.networks import model_file
from tests.predicting.conftest import SETTINGS
from tests.published import publish_aligned


def volume_of(prepared):
    return prepared.run_uri.rpartition("/runs/")[0]


def root_of(prepared):
    return manifest.run_root(prepared.run_uri)


@pytest.fixture(scope="module")
def done(aligned, model, cluster, tmp_path_factory):
    """A prediction that is published."""
    prepared = prepare(aligned, model, tmp_path_factory.mktemp("done").as_uri(), SETTINGS)
    run_prediction(prepared.run_uri, cluster)
    return prepared


def whole(image, file):
    """The network on the whole array at once, (channel, z, y, x)."""
    network = load_network(file)
    values = network((image / np.float32(255)).astype(np.float32)[None, ..., None])[0]
    return np.moveaxis(values, -1, 0)


INSIDE = (slice(None), slice(3, -3), slice(3, -3), slice(3, -3))
"""At the border a network pads each of its layers with zeros, a patch only the voxels."""


def test_a_prediction_is_the_network_on_the_whole_array(done, image, model):
    found = open_prediction(volume_of(done))
    assert (found.dims, found.shape) == (("c", "z", "y", "x"), (2, *image.shape))
    expected = 255 * whole(image, read_bytes(model))
    np.testing.assert_allclose(found.values[INSIDE], expected[INSIDE], atol=0.51)
    np.testing.assert_allclose(found.y[:3], [0, 4, 8])


def test_where_the_volume_has_no_data_the_prediction_is_0(cluster, model, image, tmp_path):
    hurt = image.copy()
    hurt[2:4, 10:80, 30:33] = 0
    source = join(tmp_path.as_uri(), "hurt")
    publish_aligned(source, hurt)
    found = {}
    for blank in (True, False):
        settings = SETTINGS | {"volume": SETTINGS["volume"] | {"blank_empty": blank}}
        prepared = prepare(source, model, join(tmp_path.as_uri(), str(blank)), settings)
        run_prediction(prepared.run_uri, cluster)
        found[blank] = open_prediction(volume_of(prepared)).values
    assert (found[False][:, hurt == 0] > 0).all()
    assert not found[True][:, hurt == 0].any()
    np.testing.assert_array_equal(found[True][:, hurt > 0], found[False][:, hurt > 0])


def test_a_finished_prediction_is_whole_published_and_not_done_twice(done, cluster, monkeypatch):
    report = verify_volume(volume_of(done), full=True)
    assert report.is_clean, report.problems
    pointer = read_pointer(volume_of(done))
    assert (pointer.epoch, pointer.root) == (1, root_of(done))
    state = ledger.read_state(done.run_uri, "predict")
    assert (state.status, state.blocks_done) == ("done", done.figures.units + 1)
    assert state.bytes_read >= done.figures.bytes_read
    assert state.bytes_written == done.figures.bytes_written
    monkeypatch.setattr(work.Work, "__call__", None)
    run_prediction(done.run_uri, cluster)
    assert len(versions(volume_of(done))) == 1


def test_an_interruption_does_not_change_a_byte(done, prepare_run, cluster):
    prepared, stopped = prepare_run(), []

    def stop_once(state):
        if state.blocks_done == 3 and not stopped:
            stopped.append(state)
            raise OSError("the driver's machine fails")

    with pytest.raises(StageFailed, match="machine fails"):
        run_prediction(prepared.run_uri, cluster, tell=stop_once)
    assert read_pointer(volume_of(prepared)) is None
    run_prediction(prepared.run_uri, cluster)
    # The source, the model and the settings are the same; the place is not part of a run's key.
    assert prepared.run_uri.rpartition("/")[2] == done.run_uri.rpartition("/")[2]
    assert root_of(prepared) == root_of(done)


def test_what_a_user_stops_is_not_published(prepare_run, cluster):
    prepared = prepare_run()

    def stop(state):
        if state.blocks_done == prepared.figures.units:
            ledger.stop(prepared.run_uri, "predict", "by a user")

    with pytest.raises(StageFailed, match="stopped from outside"):
        run_prediction(prepared.run_uri, cluster, tell=stop)
    assert read_pointer(volume_of(prepared)) is None
    assert ledger.read_state(prepared.run_uri, "predict").error == "by a user"


def test_blended_float16_patches_of_a_coarser_level(prepare_run, cluster, image, tmp_path):
    """By a network without padding, of which all patches agree where they overlap."""
    model = join(tmp_path.as_uri(), "valid.keras")
    replace_bytes(model, model_file(padding="valid"))
    settings = {
        "patches": {
            "mip": 1, "join": "blend", "batch": 2, "patch_px": [14, 48, 48], "margin_px": [5, 8, 8],
        },
        "volume": {"dtype": "float16", "shard": [8, 32, 32]},
    }  # fmt: skip
    prepared = prepare_run(settings, of=model)
    run_prediction(prepared.run_uri, cluster)
    found = open_prediction(volume_of(prepared))
    expected = whole(image[:, ::2, ::2], read_bytes(model))
    assert found.dtype == np.float16
    np.testing.assert_allclose(found.y[:2], [2, 10])
    np.testing.assert_allclose(found.values[INSIDE], expected, atol=5e-4)
    assert verify_volume(volume_of(prepared), full=True).is_clean


def test_a_prediction_does_not_depend_on_its_shards(prepare_run, cluster):
    found = []
    for shard in ([8, 64, 64], [4, 48, 80]):  # the second is no whole number of steps
        patches = SETTINGS["patches"] | {"join": "blend"}
        volume = {"shard": shard, "chunk": [4, 16, 16], "dtype": "float16"}
        prepared = prepare_run({"patches": patches, "volume": volume})
        run_prediction(prepared.run_uri, cluster)
        found.append(open_prediction(volume_of(prepared)).values)
    np.testing.assert_array_equal(*found)


def reused(run_uri):
    return ledger.read_state(run_uri, "predict").blocks_reused


def test_only_what_a_new_version_changed_is_predicted_again(
    image, model, prepare_run, cluster, tmp_path
):
    source = join(tmp_path.as_uri(), "source")
    publish_aligned(source, image)
    first = prepare_run(source=source)
    run_prediction(first.run_uri, cluster)
    changed = image.copy()
    changed[:, 70:80, :40] = 9  # in one shard of the source; seen by the shards above and beside it
    publish_aligned(source, changed, "b" * 16)
    second = prepare_run(source=source)
    assert second.run_uri != first.run_uri
    run_prediction(second.run_uri, cluster)
    keys = {
        run: {u: c.key for u, c in records.read_commits(run, "predict", "shards").items()}
        for run in (first.run_uri, second.run_uri)
    }
    same = [u for u, key in keys[first.run_uri].items() if keys[second.run_uri][u] == key]
    assert reused(second.run_uri) == len(same)
    before, after = (open_prediction(volume_of(first), at=epoch).values for epoch in (1, 2))
    differs = (before != after).any(axis=(0, 1))
    assert differs[67:83, :43].mean() > 0.9
    differs[67:83, :43] = False
    assert not differs.any()
    # The old version of the source, asked for by its epoch, is the old prediction.
    assert prepare_run(source=source, at=1).run_uri == first.run_uri
    run_prediction(first.run_uri, cluster)
    assert read_pointer(volume_of(first)).run == first.run_uri.rpartition("/")[2]


def test_another_model_or_setting_is_another_run_of_which_all_is_computed(
    done, prepare_run, tmp_path
):
    key = done.run_uri.rpartition("/")[2]
    other = join(tmp_path.as_uri(), "other.keras")
    replace_bytes(other, model_file(seed=1))
    assert prepare_run(of=other).run_uri.rpartition("/")[2] != key
    scaled = SETTINGS | {"patches": SETTINGS["patches"] | {"scale": "raw"}}
    assert prepare_run(scaled).run_uri.rpartition("/")[2] != key


def test_the_model_that_was_frozen_is_used_whatever_becomes_of_the_file(
    prepare_run, cluster, tmp_path, done
):
    mine = join(tmp_path.as_uri(), "mine.keras")
    replace_bytes(mine, model_file())
    prepared = prepare_run(of=mine)
    replace_bytes(mine, b"something else")
    run_prediction(prepared.run_uri, cluster)
    paths = {o.path: o.blake3 for u in records.read_commits(
        prepared.run_uri, "predict", "shards").values() for o in u.objects}  # fmt: skip
    assert paths == {o.path: o.blake3 for u in records.read_commits(
        done.run_uri, "predict", "shards").values() for o in u.objects}  # fmt: skip


def test_a_block_that_needs_too_much_memory_is_refused_with_the_settings(prepare_run):
    with pytest.raises(ConfigError, match=r"Lower patches\.patch_px, patches\.batch or"):
        prepare_run({**SETTINGS, "limits": {"worker_memory_gib": 0.2}})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"patches": {"patch": 3}}, "patches.patch: no such setting; did you mean"),
        ({"patch_px": 3}, "patch_px: no such setting"),
        ({"patches": {"batch": 0}}, "patches.batch: Input should be greater"),
        ({"patches": {"patch_px": [8, 64, 64]}}, "nothing left inside a margin"),
        ({"volume": {"shard": [8, 64, 64], "chunk": [8, 48, 48]}}, "a multiple of volume.chunk"),
    ],
)
def test_wrong_settings_are_refused(prepare_run, settings, message):
    with pytest.raises(ConfigError, match=message):
        prepare_run(settings)


def test_what_is_no_model_is_refused(prepare_run, tmp_path):
    bad = join(tmp_path.as_uri(), "bad.keras")
    with pytest.raises(MissingError):
        prepare_run(of=bad)
    replace_bytes(bad, b"\x80\x04\x95 a pickle")
    with pytest.raises(ConfigError, match="expected a Keras 3 archive"):
        prepare_run(of=bad)


def test_a_place_where_an_aligned_volume_is_published_is_refused(aligned, model):
    with pytest.raises(ConfigError, match="a place of its own"):
        prepare(aligned, model, aligned, SETTINGS)


def test_a_source_without_a_version_is_refused(prepare_run, tmp_path):
    with pytest.raises(MissingError, match="has no published version"):
        prepare_run(source=tmp_path.as_uri())
    with pytest.raises(MissingError, match="has no version 7"):
        prepare_run(at=7)


def test_a_damaged_shard_of_the_source_stops_the_prediction(image, prepare_run, cluster, tmp_path):
    source = join(tmp_path.as_uri(), "source")
    run_uri = publish_aligned(source, image)
    shard = join(run_uri, "aligned/0/c/0/0/0")
    data = bytearray(read_bytes(shard))
    data[100] ^= 1
    replace_bytes(shard, bytes(data))
    prepared = prepare_run(source=source)
    with pytest.raises(StageFailed, match=CorruptError.__name__):
        run_prediction(prepared.run_uri, cluster)
    assert read_pointer(volume_of(prepared)) is None


def test_damage_is_found_and_mended_with_the_recorded_bytes(prepare_run, cluster):
    prepared = prepare_run()
    run_prediction(prepared.run_uri, cluster)
    root = root_of(prepared)
    delete(join(prepared.run_uri, "prediction/0/c/0/0/1/1"))
    replace_bytes(join(prepared.run_uri, "model.keras"), b"torn")
    replace_bytes(join(prepared.run_uri, "prediction/0/zarr.json"), b"{}")
    report = verify_volume(volume_of(prepared), full=True)
    assert len(report.problems) == 3
    mended = repair(report, cluster)
    assert not mended.failed
    assert mended.units == ["predict/model/all", "predict/shards/m0_z0_y64_x64"]
    assert verify_volume(volume_of(prepared), full=True).is_clean
    assert root_of(prepared) == root


def test_metadata_that_were_changed_after_publishing_are_refused(prepare_run, cluster):
    prepared = prepare_run()
    run_prediction(prepared.run_uri, cluster)
    group = join(prepared.run_uri, "prediction/zarr.json")
    replace_bytes(group, read_bytes(group).replace(b"4.0", b"8.0"))
    with pytest.raises(CorruptError, match="not what the run was sealed with"):
        open_prediction(volume_of(prepared))
