import json
import sys
import urllib.request
from urllib.parse import urlsplit

import numpy as np
import pytest

from alignment import viewer
from alignment.errors import ConfigError
from alignment.viewer import Layer
from storage import publish, store, volume
from storage.errors import MissingError
from storage.grid import tile

ALIGNED = Layer("aligned", "http://h/v", (30, 800, 1320), (40.0, 4.0, 5.0), (20, 230))
UNALIGNED = Layer("unaligned", "http://h/v/s", (30, 900, 900), (40.0, 4.0, 5.0), (10, 240))


def panes(layout):
    if layout["type"] == "viewer":
        return [(*layout["layers"], layout["layout"])]
    return [pane for child in layout["children"] for pane in panes(child)]


def test_before_stands_left_of_after_each_above_its_cut():
    state = viewer.viewer_state(ALIGNED, UNALIGNED)
    assert panes(state["layout"]) == [
        *(("unaligned", "xy"), ("unaligned", "xz")),
        *(("aligned", "xy"), ("aligned", "xz")),
    ]


def test_a_volume_alone_is_shown_in_three_planes():
    state = viewer.viewer_state(ALIGNED)
    assert panes(state["layout"]) == [("aligned", plane) for plane in ("xy", "xz", "yz")]
    assert [layer["name"] for layer in state["layers"]] == ["aligned"]


def test_axes_are_turned_round_for_the_viewer_and_in_metres():
    state = viewer.viewer_state(ALIGNED)
    assert list(state["dimensions"]) == ["x", "y", "z"]
    assert state["dimensions"] == {
        "x": [pytest.approx(5e-9), "m"],
        "y": [pytest.approx(4e-9), "m"],
        "z": [pytest.approx(40e-9), "m"],
    }
    assert state["position"] == [659.5, 399.5, 15]
    assert viewer.viewer_state(ALIGNED, position=(3, 4, 5))["position"] == [5, 4, 3]


def test_the_first_view_holds_the_whole_section():
    # 800 px over a pane of 400 px need 2 px of the volume per px of the screen, as 1320 over 660.
    assert viewer.viewer_state(ALIGNED)["crossSectionScale"] == pytest.approx(2)


def test_the_layer_has_its_contrast_and_a_zarr_3_source():
    (layer,) = viewer.viewer_state(ALIGNED)["layers"]
    assert layer["source"] == "zarr3://http://h/v/"
    assert layer["shaderControls"]["normalized"]["range"] == [20, 230]
    assert "invlerp normalized" in layer["shader"]


def test_contrast_leaves_out_no_data_and_outliers():
    image = np.full((100, 100), 120, np.uint8)
    image[:50] = 90
    image[0, 0], image[0, 1], image[90:] = 1, 255, 0
    assert viewer.contrast_range(image) == (90, 120)
    assert viewer.contrast_range(np.zeros((4, 4), np.uint8)) == (0, 255)
    assert viewer.contrast_range(np.full((4, 4), 7, np.uint8)) == (7, 8)


def test_s3_volumes_are_read_from_their_server_or_amazon():
    here = {"AWS_ENDPOINT_URL": "http://127.0.0.1:8333/"}
    assert viewer.data_url("s3://bucket/a b", environment=here) == (
        "http://127.0.0.1:8333/bucket/a%20b"
    )
    assert viewer.data_url("s3://bucket/demo", environment={}) == "s3://bucket/demo"


@pytest.fixture
def published(tmp_path):
    """Return a volume with one published run: sharded, two mips."""
    root = store.normalise_uri(tmp_path / "out.zarr")
    run = store.join(root, "runs", "abc")
    for name, low in (("aligned", 100), ("sections", 50)):
        arrays = volume.create_image(
            store.join(run, name),
            shape=(4, 64, 96),
            chunk=(2, 16, 16),
            shard=(4, 32, 32),
            resolution_nm=(40.0, 4.0, 4.0),
            mips=2,
            name=name,
        )
        for mip, array in enumerate(arrays):
            for box in tile(array.shape, volume.write_unit(array), mip=mip):
                rng = np.random.default_rng(0)
                volume.write(array, box, rng.integers(low, low + 80, box.shape).astype(np.uint8))
    publish.publish(root, "abc")
    return root


def served_state(url):
    """Return the state that the viewer's own server holds."""
    import neuroglancer

    token = urlsplit(url).path.strip("/").split("/")[-1]
    return neuroglancer.server.global_server.viewers[token].state.to_json()


def test_a_published_volume_is_served_with_its_sections(published):
    pytest.importorskip("neuroglancer", reason="the extra petalign[viewer] is not installed")
    with viewer.serve(published, environment={}) as url:
        with urllib.request.urlopen(url, timeout=10) as page:
            assert b"<title>neuroglancer</title>" in page.read()
        layers = {layer["name"]: layer for layer in served_state(url)["layers"]}
        assert set(layers) == {"unaligned", "aligned"}
        for name, low in (("unaligned", 50), ("aligned", 100)):
            shown = layers[name]["shaderControls"]["normalized"]["range"]
            assert shown == pytest.approx([low, low + 79], abs=2)
            source = layers[name]["source"]
            group = (source if isinstance(source, str) else source["url"]).removeprefix("zarr3://")
            with urllib.request.urlopen(f"{group}zarr.json", timeout=10) as answer:
                ome = json.load(answer)["attributes"]["ome"]
            first = ome["multiscales"][0]["datasets"][0]["path"]
            with urllib.request.urlopen(f"{group}{first}/zarr.json", timeout=10) as answer:
                assert json.load(answer)["shape"] == [4, 64, 96]
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=10)


def test_a_run_and_a_bare_pyramid_are_shown_too(published):
    for below, names in (("runs/abc", ["unaligned", "aligned"]), ("runs/abc/aligned", ["aligned"])):
        root = store.join(published, below)
        layers = [layer for layer in reversed(viewer._layers(root, "http://h")) if layer]
        assert [layer.name for layer in layers] == names
        assert layers[-1].shape == (4, 64, 96)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    pytest.importorskip("neuroglancer", reason="the extra petalign[viewer] is not installed")
    with (
        pytest.raises(MissingError, match="none does not exist"),
        viewer.serve(str(tmp_path / "none"), environment={}),
    ):
        pass


def test_without_neuroglancer_the_message_says_what_to_install(monkeypatch, published):
    monkeypatch.setitem(sys.modules, "neuroglancer", None)
    with (
        pytest.raises(ConfigError, match=r"pip install 'petalign\[viewer\]'"),
        viewer.serve(published, environment={}),
    ):
        pass
