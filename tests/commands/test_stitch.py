"""`petalign stitch` from tiles to a volume of sections: true places, resume, refusals."""

import json

import imagecodecs
import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from alignment.cli import app
from alignment.commands import stitch as command
from alignment.commands.stitch import stitch, stitched_uri
from alignment.pyramid import downsample
from alignment.runs import load
from alignment.stages.stitched import Stitched
from storage.errors import ConflictError, SourceError
from storage.sections import open_source
from storage.sources.montage import open_montage
from storage.store import walk
from tests.camera import grid_positions, photograph, real_data


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """Two sections of 2 x 2 tiles whose stage is 12 px off; the truth of each."""
    folder = tmp_path_factory.mktemp("tiles")
    rng = np.random.default_rng(0)
    lines, truth = ["file,section,y,x"], []
    for z in range(2):
        positions = grid_positions(2, seed=z)
        truth.append(positions)
        for i, position in enumerate(positions):
            name = f"s{z}_t{i}.png"
            image = photograph(position, seed=10 * z + i)
            (folder / name).write_bytes(imagecodecs.png_encode(image))
            y, x = position + rng.uniform(-12, 12, 2)
            lines.append(f"{name},{z},{y:.2f},{x:.2f}")
    (folder / "positions.csv").write_text("\n".join(lines))
    return folder, truth


def records(target, n=2):
    return [json.loads((target / f"positions/{z:06d}.json").read_text()) for z in range(n)]


def test_tiles_become_sections_at_their_true_places(tiles, tmp_path):
    folder, truth = tiles
    done = stitch(str(folder), str(tmp_path / "out.zarr"))
    assert (done.tiles, done.loose, done.unreadable, done.rejected) == (8, 0, 0, 0)
    for record, true in zip(records(tmp_path / "out.zarr"), truth, strict=True):
        found = np.array([tile["position"] for tile in record["tiles"]])
        error = (found - found[0]) - (true - true[0])
        assert np.hypot(*error.T).max() <= 0.15
    sections = open_source(tmp_path / "out.zarr")
    assert sections.shape == done.shape
    # What one tile alone shows is its own pixels.
    y, x = records(tmp_path / "out.zarr")[1]["tiles"][0]["pixel"]
    own = open_montage(folder).read_tile(1, 0)[:150, :150]
    np.testing.assert_array_equal(sections.read_rows(1, y, y + 150)[:, x : x + 150], own)


def test_levels_of_the_pyramid_belong_together(tiles, tmp_path, monkeypatch):
    monkeypatch.setattr(command, "pyramid_levels", lambda shape: 3)
    stitch(str(tiles[0]), str(tmp_path / "out.zarr"))
    from storage.volume import open_array, read_region

    fine, half = (
        read_region(open_array(f"file://{tmp_path}/out.zarr", str(mip)), (slice(None),) * 3)
        for mip in (0, 1)
    )
    padded = np.pad(fine, ((0, 0), *((0, n % 2) for n in fine.shape[1:])))
    np.testing.assert_array_equal(half, downsample(padded))


def test_bands_of_rows_are_the_section(tiles, tmp_path):
    stitch(str(tiles[0]), str(tmp_path / "out.zarr"))
    stitched = Stitched(open_montage(tiles[0]), records(tmp_path / "out.zarr"))
    whole = stitched.read_rows(0, 0, stitched.shape[1])
    bands = [stitched.read_rows(0, y, min(y + 37, len(whole))) for y in range(0, len(whole), 37)]
    np.testing.assert_array_equal(np.concatenate(bands), whole)
    assert stitched.describe()["sections"] == [stitched.fingerprint(z) for z in (0, 1)]


def test_a_stitch_that_was_stopped_is_no_volume_and_goes_on(tiles, tmp_path, monkeypatch):
    whole, begun = tmp_path / "whole.zarr", tmp_path / "begun.zarr"
    stitch(str(tiles[0]), str(whole))

    def stop(step, done, total):
        if (step, done) == ("draw", 1):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stitch(str(tiles[0]), str(begun), tell=stop)
    with pytest.raises(SourceError):
        open_source(begun)
    drawn = []
    solve = command.solve
    monkeypatch.setattr(command, "solve", lambda *a, **k: pytest.fail("solved twice") or solve)
    voxels = command._voxels
    monkeypatch.setattr(
        command, "_voxels", lambda s, f, box: drawn.append(box.start[0]) or voxels(s, f, box)
    )
    stitch(str(tiles[0]), str(begun))
    assert set(drawn) == {1}
    contents = [
        {key: (place / key).read_bytes() for key, _, _ in walk(place.as_uri())}
        for place in (whole, begun)
    ]
    contents[1]["zarr.json"] = contents[1]["zarr.json"].replace(b"begun", b"whole")
    assert contents[0] == contents[1]


def test_something_else_is_never_overwritten(tiles, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("mine")
    with pytest.raises(ConflictError, match=r"notes\.txt"):
        stitch(str(tiles[0]), str(tmp_path / "mine"))
    stitch(str(tiles[0]), str(tmp_path / "out.zarr"))
    with pytest.raises(ConflictError, match="another resolution_nm"):
        stitch(str(tiles[0]), str(tmp_path / "out.zarr"), resolution_nm=(30, 5, 5))


def test_a_tile_that_cannot_be_read_leaves_a_hole_and_is_named(tiles, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in tiles[0].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    (folder / "s1_t3.png").write_bytes(b"\x89PNG\r\n\x1a\n damaged")
    done = stitch(str(folder), str(tmp_path / "out.zarr"))
    assert (done.unreadable, done.loose) == (1, 1)
    summary = json.loads((tmp_path / "out.zarr/positions.json").read_text())
    assert summary["sections"][1]["unreadable"] == ["s1_t3.png"]
    tile = records(tmp_path / "out.zarr")[1]["tiles"][3]
    section = open_source(tmp_path / "out.zarr").read_rows(1, tile["pixel"][0] + 100, done.shape[1])
    assert not section[:, tile["pixel"][1] + 100 :].any()


def test_the_command_says_what_was_done_and_what_comes_next(tiles, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["stitch", str(tiles[0]), "out.zarr"])
    assert result.exit_code == 0
    assert "2 sections" in result.stdout
    assert "petalign align out.zarr" in result.stdout
    again = CliRunner().invoke(app, ["stitch", str(tiles[0]), "out.zarr", "--json"])
    assert json.loads(again.stdout)["tiles"] == 8
    other = CliRunner().invoke(app, ["stitch", str(tmp_path), "other.zarr"])
    assert other.exit_code == 3


def test_sections_of_a_montage_lie_beside_the_volume():
    assert stitched_uri("/data/out.zarr") == "file:///data/out.stitched.zarr"


def test_real_tiles_of_render_are_stitched_as_well_as_a_shift_allows(tmp_path):
    stitch(str(real_data("render_tiles_a")), str(tmp_path / "out.zarr"))
    (record,) = records(tmp_path / "out.zarr", 1)
    used = [pair for pair in record["pairs"] if pair["rejected"] is None]
    assert [pair["tiles"] for pair in used] == [[0, 1], [0, 2], [1, 3], [2, 3]]
    # The data set's description: normalised cross-correlations of 0.85 to 0.95 in the overlaps.
    assert min(pair["score"] for pair in used) >= 0.85
    assert max(pair["residual_px"] for pair in used) <= 1


def test_real_tiles_without_positions_are_a_strip(tmp_path):
    stitch(str(real_data("nornir_tiles") / "raw.tif"), str(tmp_path / "out.zarr"))
    (record,) = records(tmp_path / "out.zarr", 1)
    places = np.array([tile["position"] for tile in record["tiles"]])
    np.testing.assert_allclose(np.diff(places, axis=0), [(864, 8), (912, -5)], atol=1)
    pages = tifffile.imread(real_data("nornir_tiles") / "raw.tif")
    section = open_source(tmp_path / "out.zarr").read_rows(0, 0, 800)
    np.testing.assert_array_equal(section[:, : pages.shape[2]], pages[0, :800])


def test_align_stitches_a_montage_first_and_aligns_its_sections(tiles, tmp_path, monkeypatch):
    runs = []
    drive = "alignment.verbs.runs._drive"
    monkeypatch.setattr(drive, lambda run_uri, **options: runs.append(run_uri))
    for _ in range(2):
        result = CliRunner().invoke(app, ["align", str(tiles[0]), str(tmp_path / "out.zarr")])
        assert result.exit_code == 0, result.stderr
    assert runs[0] == runs[1]
    assert load(runs[0]).source_uri == (tmp_path / "out.stitched.zarr").as_uri()
    assert load(runs[0]).shape[0] == 2
