"""Folders of tiles: positions.csv, Render's tile specs, strips without positions."""

import json

import imagecodecs
import numpy as np
import pytest
import tifffile

from storage.errors import SourceError
from storage.sections import open_source
from storage.sources.montage import has_montage, open_montage, open_strip
from tests.camera import real_data

IMAGE = np.arange(1, 121, dtype=np.uint8).reshape(10, 12)


@pytest.fixture
def folder(tmp_path):
    """Two tiles, one TIFF of two pages, and a mask."""
    tifffile.imwrite(tmp_path / "a.tif", IMAGE)
    (tmp_path / "b.png").write_bytes(imagecodecs.png_encode(IMAGE[::-1]))
    (tmp_path / "deep").mkdir()
    tifffile.imwrite(tmp_path / "deep/pages.tif", np.stack([IMAGE, 255 - IMAGE]))
    tifffile.imwrite(tmp_path / "mask.tif", (IMAGE > 60).astype(np.uint8) * 255)
    return tmp_path


def write_table(folder, *lines):
    (folder / "positions.csv").write_text("\n".join(lines) + "\n")


def test_positions_name_file_section_place_page_and_mask(folder):
    write_table(
        folder,
        "file, section, y, x, page, mask",
        "deep/pages.tif, 10, 0, 9.5, 1, mask.tif",
        "a.tif, 9, -3, 0, , ",
        "b.png, 9, 5.25, 8, , ",
    )
    montage = open_montage(folder)
    assert montage.names == ("9", "10")
    np.testing.assert_array_equal(montage.sections[0].nominal, [(-3, 0), (5.25, 8)])
    np.testing.assert_array_equal(montage.read_tile(0, 0), IMAGE)
    np.testing.assert_array_equal(montage.read_tile(0, 1), IMAGE[::-1])
    np.testing.assert_array_equal(montage.read_tile(1, 0), 255 - IMAGE)
    np.testing.assert_array_equal(montage.read_mask(1, 0), IMAGE > 60)
    assert montage.read_mask(0, 0) is None


def test_a_section_with_empty_places_is_a_strip_in_the_order_of_its_lines(folder):
    write_table(folder, "file,z,y,x", "b.png,0,,", "a.tif,0,,")
    section = open_montage(folder).sections[0]
    assert section.nominal is None
    assert [tile.file for tile in section.tiles] == ["b.png", "a.tif"]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["file,section,y", "a.tif,0,1"], "expected file, section"),
        (["file,y,x", "a.tif,0,1"], "expected file, section"),
        (["file,section,y,x,ypos", "a.tif,0,1,1,1"], "ypos"),
        (["file,section,y,x"], "lists no tiles"),
        (["file,section,y,x", "a.tif,0,1"], "line 2: expected 4 values"),
        (["file,section,y,x", "a.tif,0,1,2,3"], "line 2: expected 4 values"),
        (["file,section,y,x", "a.tif,0,one,2"], "line 2: y is 'one'"),
        (["file,section,y,x", "a.tif,0,nan,2"], "line 2: y is 'nan'"),
        (["file,section,y,x", "a.tif,,1,2"], "section is empty"),
        (["file,section,y,x", "../a.tif,0,1,2"], "line 2: .*below the folder"),
        (["file,section,y,x", "/etc/passwd,0,1,2"], "line 2: .*below the folder"),
        (["file,section,y,x,page", "a.tif,0,1,2,-1"], "page is '-1'"),
        (["file,section,y,x", "a.tif,0,1,2", "b.png,0,,"], "b.png has no y and x"),
    ],
)
def test_a_table_that_cannot_be_understood_names_the_line(folder, lines, message):
    write_table(folder, *lines)
    with pytest.raises(SourceError, match=message):
        open_montage(folder)


def test_a_folder_with_positions_is_no_stack_of_sections(folder):
    write_table(folder, "file,section,y,x", "a.tif,0,0,0")
    with pytest.raises(SourceError, match="petalign stitch"):
        open_source(folder)


def test_a_folder_without_positions_is_no_montage(folder):
    assert not has_montage(["a.tif", "b.png"])
    with pytest.raises(SourceError, match="neither"):
        open_montage(folder)


def test_a_tile_that_cannot_be_read_raises_when_it_is_read(folder):
    (folder / "bad.tif").write_bytes((folder / "a.tif").read_bytes()[:60])
    tifffile.imwrite(folder / "deep16.tif", IMAGE.astype(np.uint16))
    write_table(
        folder, "file,section,y,x,page", *(f"{name},0,0,0,{page}" for name, page in
        [("bad.tif", 0), ("gone.tif", 0), ("deep16.tif", 0), ("a.tif", 7)])
    )  # fmt: skip
    montage = open_montage(folder)
    for i, message in enumerate(["bad.tif", "gone.tif", "uint16", "page 7 does not exist"]):
        with pytest.raises(SourceError, match=message):
            montage.read_tile(0, i)


def test_fingerprints_change_with_a_file_a_place_and_nothing_else(folder):
    lines = ["file,section,y,x", "a.tif,0,0,0", "b.png,1,0,0"]
    write_table(folder, *lines)
    before = open_montage(folder).describe()["sections"]
    assert before == open_montage(folder).describe()["sections"]
    write_table(folder, *lines[:2], "b.png,1,0,4")
    moved = open_montage(folder).describe()["sections"]
    assert (moved[0] == before[0], moved[1] == before[1]) == (True, False)
    tifffile.imwrite(folder / "a.tif", IMAGE[:, ::-1], description="another size")
    changed = open_montage(folder).describe()["sections"]
    assert (changed[0] == moved[0], changed[1] == moved[1]) == (False, True)


def test_a_strip_is_the_pages_of_a_file_or_the_images_of_a_folder(folder):
    pages = open_strip(folder / "deep/pages.tif")
    assert [(tile.file, tile.page) for tile in pages.sections[0].tiles] == [
        ("pages.tif", 0),
        ("pages.tif", 1),
    ]
    np.testing.assert_array_equal(pages.read_tile(0, 1), 255 - IMAGE)
    assert [t.file for t in open_strip(folder).sections[0].tiles] == ["a.tif", "b.png", "mask.tif"]
    with pytest.raises(SourceError, match="two or more"):
        open_strip(folder / "a.tif")


def spec(name, **values):
    level = {"imageUrl": f"file:/far/away/{name}"}
    box = {"minX": 100.0, "minY": 40.0, "maxX": 124.0, "maxY": 60.0}
    return {"z": 7.0, "width": 24.0, "height": 20.0, "mipmapLevels": {"0": level}, **box, **values}


def test_tile_specs_are_scaled_to_the_files(folder):
    (folder / "tilespecs.json").write_text(json.dumps([spec("a.tif"), spec("b.png", minX=110.0)]))
    section = open_montage(folder).sections[0]
    assert section.name == "7"
    np.testing.assert_allclose(section.nominal, [(20, 50), (20, 52.5)])  # files of half the size


def test_tile_specs_are_turned_back_by_their_affines(folder):
    quarter = {"className": "mpicbg.trakem2.transform.AffineModel2D", "dataString": "0 1 -1 0 5 5"}
    box = {"minX": 0.0, "maxX": 20.0, "minY": 0.0, "maxY": 24.0}
    specs = [
        spec("a.tif", transforms={"specList": [quarter]}, **box),
        spec("b.png", transforms={"specList": [quarter]}, **box | {"minY": 20.0, "maxY": 44.0}),
    ]
    (folder / "tilespecs.json").write_text(json.dumps({"tileSpecs": specs}))
    nominal = open_montage(folder).sections[0].nominal
    # 20 px down in a section that is turned by 90 degrees are 20 px along x of the tile.
    np.testing.assert_allclose(nominal[1] - nominal[0], (0, 10), atol=1e-9)


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{", "is not JSON"),
        ("{}", "holds no tile specs"),
        ("[1]", "holds no tile specs"),
        ([{"z": 1}], "tile 0 cannot be understood"),
        ([spec("elsewhere.tif")], "elsewhere.tif is not in the folder"),
        ([spec("..")], "below the folder"),
        ([spec("a.tif", minX="nan")], "lies at"),
    ],
)
def test_tile_specs_that_cannot_be_understood_name_the_tile(folder, document, message):
    text = document if isinstance(document, str) else json.dumps(document)
    (folder / "tilespecs.json").write_text(text)
    with pytest.raises(SourceError, match=message):
        open_montage(folder)


def test_tile_specs_of_real_tiles_are_near_their_true_places():
    montage = open_montage(real_data("render_tiles_a"))
    nominal = montage.sections[0].nominal
    assert montage.names == ("3903",)
    np.testing.assert_allclose(nominal[1] - nominal[0], (970, -8), atol=20)
    np.testing.assert_allclose(nominal[2] - nominal[0], (22, 978), atol=20)
    assert montage.read_mask(0, 0).mean() == pytest.approx(0.845, abs=0.01)
