"""What comes out of the whole way: near the truth, readable by others, mapped both ways."""

import json
from html.parser import HTMLParser

import numpy as np
import ome_zarr_models
import pytest
import tensorstore
import zarr

import storage
from alignment.commands.query import find_run, to_aligned, to_source
from alignment.fields import flipped_cells
from alignment.runs import load
from alignment.stages import inputs
from alignment.stages.knowntruth import measure, read_truth
from storage.store import read_bytes, read_json
from storage.uri import local_path
from storage.volume import open_array


@pytest.fixture(scope="module")
def run(aligned_run):
    return load(aligned_run)


def test_neighbours_lie_on_each_other_to_a_pixel_where_tissue_is_known(run):
    truth = measure(run)
    assert truth.before.p50 > 10
    assert truth.error.p50 < 1.0
    assert truth.error.p99 < 5.0


def test_the_blank_section_is_bridged_and_stays_black(run, phantom):
    blank = [z for z, tissue in enumerate(read_truth(phantom).tissue) if not tissue.any()]
    assert len(blank) == 1
    assert inputs.missing(run.uri) == set(blank)
    volume = storage.open_aligned(run.volume_uri)
    assert not volume[blank[0]].to_numpy().any()
    assert volume[blank[0] - 1].to_numpy().any()
    assert (blank[0] + 1, 2) in inputs.match_pairs(run)


def test_no_cell_flips(run):
    spacing = run.config.relax.node_spacing_px
    for field in inputs.read_all(open_array(run.uri, "fields")):
        assert not flipped_cells(field, spacing).any()


def test_the_report_tells_the_same_figures_and_loads_nothing(run):
    figures = read_json(run.uri + "/qc.json")
    after, before = figures["correlation"]["after"], figures["correlation"]["before"]
    assert after["p50"] > before["p50"] + 0.1
    assert figures["truth"]["error"]["p50"] == pytest.approx(measure(run).error.p50)
    page = read_bytes(run.uri + "/report.html").decode()
    assert f"{run.shape[0]}" in page

    found = []

    class Loads(HTMLParser):
        def handle_starttag(self, tag, attrs):
            found.extend(v for k, v in attrs if k in ("src", "srcset") and "data:" not in v)

    Loads().feed(page)
    assert found == []


def test_points_map_to_the_source_and_back(run, aligned_run):
    rng = np.random.default_rng(0)
    points = rng.uniform(120, 260, (50, 2))
    for z in (0, 3, 7):
        there = to_source(aligned_run, z, points)
        np.testing.assert_allclose(to_aligned(aligned_run, z, there), points, atol=0.05)
        assert np.abs(there - points).max() > 1


def test_a_point_maps_to_the_pixel_that_was_drawn_there(run, aligned_run):
    aligned = storage.open_aligned(run.volume_uri)[4].to_numpy()
    source = inputs.section(run, 4, 0)
    points = np.stack(np.mgrid[140:240:5, 140:240:5], -1).reshape(-1, 2)
    y, x = np.rint(to_source(aligned_run, 4, points.astype(float))).astype(int).T
    drawn, taken = aligned[tuple(points.T)].astype(float), source[y, x].astype(float)
    assert np.corrcoef(drawn, taken)[0, 1] > 0.9


def test_others_read_the_volume_with_their_public_interfaces(run):
    view = storage.open_aligned(run.volume_uri)
    assert view.dims == ("z", "y", "x")
    expected = view.to_numpy()
    folder = local_path(run.volume_uri)
    group = zarr.open_group(folder, mode="r")
    image = ome_zarr_models.open_ome_zarr(group)
    path = image.ome_attributes.multiscales[0].datasets[0].path
    np.testing.assert_array_equal(group[path][:], expected)
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder / path)}}
    opened = tensorstore.open(spec, read=True).result()
    np.testing.assert_array_equal(opened.read().result(), expected)


def test_the_volume_is_its_published_run(run, aligned_run):
    assert find_run(run.volume_uri) == aligned_run
    assert json.loads(read_bytes(run.volume_uri + "/LATEST.json"))["run"] == run.key
