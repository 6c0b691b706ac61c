"""Exports of a finished run: strangers map points and open links from what they were given."""

import json

import numpy as np
import pytest
import zarr
from typer.testing import CliRunner

from alignment.cli import app
from alignment.commands.export import export, link
from alignment.commands.query import to_aligned, to_source
from alignment.errors import ConfigError
from alignment.runs import load
from storage.errors import ConflictError, UriError
from storage.publish import read_pointer
from storage.targets.neuroglancer import VIEWER_URL
from storage.targets.origin import find_origin
from storage.uri import local_path


@pytest.fixture(scope="module")
def run(aligned_run):
    return load(aligned_run)


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    place = tmp_path_factory.mktemp("field") / "field.zarr"
    export(run.volume_uri, "field", str(place))
    return place


def strangers_mapping(place, z, point):
    """Map one point by the words in the export's attributes, with nothing of this project."""
    group = zarr.open_group(place, mode="r")
    spacing = group.attrs["petalign_field"]["node_spacing_px"]
    field, affine = group["fields"][z], group["coarse"][z]
    nodes = np.clip(np.array(point) / spacing, 0, np.array(field.shape[1:]) - 1)
    i, j = np.minimum(np.floor(nodes).astype(int), np.array(field.shape[1:]) - 2)
    fy, fx = nodes - (i, j)
    top = field[:, i, j] * (1 - fx) + field[:, i, j + 1] * fx
    low = field[:, i + 1, j] * (1 - fx) + field[:, i + 1, j + 1] * fx
    q = np.array(point) + top * (1 - fy) + low * fy
    return affine[:, :2] @ q + affine[:, 2]


def test_a_stranger_maps_points_exactly_as_query_does(run, exported):
    about = zarr.open_group(exported, mode="r").attrs["petalign_field"]
    nz, ny, nx = about["aligned_shape"]
    rng = np.random.default_rng(0)
    worst = 0.0
    for z in range(nz):
        points = rng.uniform((-20, -20), (ny + 20, nx + 20), (25, 2))
        for point, expected in zip(points, to_source(run.uri, z, points), strict=True):
            worst = max(worst, np.abs(strangers_mapping(exported, z, point) - expected).max())
    assert worst < 0.01


def test_the_way_back_is_the_one_that_is_described(run, exported):
    """q = A^-1 s, then p = q - field(p), repeated."""
    group = zarr.open_group(exported, mode="r")
    source = np.array([150.25, 201.5])
    affine = group["coarse"][2]
    q = np.linalg.solve(affine[:, :2], source - affine[:, 2])
    p = q
    for _ in range(50):
        shown = strangers_mapping(exported, 2, p)
        p = p + np.linalg.solve(affine[:, :2], source - shown)
    np.testing.assert_allclose(p, to_aligned(run.uri, 2, source[np.newaxis])[0], atol=0.1)


def test_the_export_says_what_it_is_and_of_what(run, exported):
    about = zarr.open_group(exported, mode="r").attrs["petalign_field"]
    pointer = read_pointer(run.volume_uri)
    assert (about["run"], about["epoch"], about["root"]) == (
        run.key, pointer.epoch, pointer.root
    )  # fmt: skip
    assert about["aligned_shape"][0] == run.shape[0]
    assert about["missing_sections"] == [3]
    assert len(about["section_names"]) == run.shape[0]


def test_exporting_again_changes_nothing_and_something_else_is_refused(run, exported, tmp_path):
    before = {p: p.read_bytes() for p in exported.rglob("*") if p.is_file()}
    export(run.volume_uri, "field", str(exported))
    assert before == {p: p.read_bytes() for p in exported.rglob("*") if p.is_file()}
    (tmp_path / "notes").write_text("mine")
    with pytest.raises(ConflictError, match="notes"):
        export(run.volume_uri, "field", str(tmp_path))
    with pytest.raises(ConflictError, match="single image"):
        export(run.uri + "/sections", "field", str(tmp_path / "other"))


def test_a_link_shows_the_published_run_and_holds_no_secret(run, monkeypatch):
    neuroglancer = pytest.importorskip("neuroglancer")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "canary-key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "canary-secret")
    url = export(run.volume_uri, "link", base_url="https://data.example/em/out.zarr/")
    assert url.startswith(f"{VIEWER_URL}/#!")
    assert "canary" not in url
    state = neuroglancer.parse_url(url).to_json()
    sources = {layer["name"]: layer["source"] for layer in state["layers"]}
    base = f"zarr3://https://data.example/em/out.zarr/runs/{run.key}"
    assert sources == {"aligned": f"{base}/aligned/", "unaligned": f"{base}/sections/"}
    assert str(local_path(run.volume_uri)) not in url


def test_a_link_without_a_public_place_says_what_to_give(run, monkeypatch):
    with pytest.raises(ConfigError, match="--base-url"):
        export(run.volume_uri, "link")
    with pytest.raises(UriError) as refused:
        export(run.volume_uri, "link", base_url="https://me:canary@data.example/em")
    assert "canary" not in str(refused.value)
    origin = find_origin(run.volume_uri)
    with pytest.raises(UriError) as refused:
        link(run.volume_uri, origin, viewer_url="https://viewer.example/?token=canary",
             base_url="https://data.example/em")  # fmt: skip
    assert "canary" not in str(refused.value)


def test_the_command_exports_a_range_and_checks_its_options(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    volume = str(local_path(run.volume_uri))

    def petalign(*words):
        return CliRunner().invoke(app, ["export", volume, *words])

    done = petalign("t", "--to", "tiff", "--z", "1:3", "--box", "10:200,20:90", "--mip", "0")
    assert done.exit_code == 0
    assert "2 sections" in done.stdout
    assert run.key in done.stdout
    assert sorted(p.name for p in (tmp_path / "t").glob("*.tif")) == ["z000001.tif", "z000002.tif"]
    assert petalign("p", "--to", "precomputed", "--at", "1").exit_code == 0
    assert json.loads((tmp_path / "p/info").read_text())["scales"][0]["encoding"] == "raw"
    for words, said in [
        (("x", "--to", "png"), "precomputed, tiff, field, link"),
        (("--to", "tiff", "--z", "1:3"), "needs DEST"),
        (("x", "--to", "tiff", "--z", "1-3"), "START:STOP"),
        (("x", "--to", "tiff", "--box", "1:3"), "Y0:Y1,X0:X1"),
        (("x", "--to", "field", "--z", "1:3"), "does not take --z"),
    ]:
        refused = petalign(*words)
        assert refused.exit_code == 2
        assert said in refused.stderr
    assert petalign("x", "--to", "tiff", "--at", "77").exit_code == 3
    assert not (tmp_path / "x").exists()
