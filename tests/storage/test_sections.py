"""Sources of every kind, whole and damaged, give the same sections."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st

from storage import store
from storage.errors import SourceError
from storage.sections import open_source, read_section
from storage.sources.folder import natural_key
from storage.sources.grey import to_grey

DATA = Path(os.environ.get("ALIGN_TEST_DATA", "../shared/data")).resolve()


def _stack(nz: int = 5, ny: int = 40, nx: int = 30):
    return np.random.default_rng(0).integers(0, 256, (nz, ny, nx)).astype(np.uint8)


def _assert_is(source, stack):
    assert source.shape == stack.shape
    assert len(source.names) == len(stack)
    ny = stack.shape[1]
    for z in range(len(stack)):
        section = read_section(source, z)
        assert section.dtype == np.uint8
        np.testing.assert_array_equal(section, stack[z])
        for y0, y1 in ((0, 1), (3, ny - 2), (ny - 1, ny), (ny // 2, ny)):
            np.testing.assert_array_equal(source.read_rows(z, y0, y1), stack[z, y0:y1])
    for z in (-1, len(stack)):
        with pytest.raises(SourceError, match="has the sections 0 to"):
            read_section(source, z)
    for y0, y1 in ((-1, 2), (2, 2), (ny - 1, ny + 1)):
        with pytest.raises(SourceError, match="has the rows 0 to"):
            source.read_rows(0, y0, y1)
    fingerprints = [source.fingerprint(z) for z in range(len(stack))]
    assert source.describe()["sections"] == fingerprints


def _png(path: Path, image) -> None:
    path.write_bytes(imagecodecs.png_encode(image))


# TIFF -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"metadata": None},
        {"metadata": None, "compression": "zlib"},
        {"metadata": None, "bigtiff": True},
        {"metadata": None, "byteorder": ">"},
        {"metadata": None, "tile": (16, 16)},
        {},
        {"imagej": True, "metadata": {"axes": "ZYX"}},
        {"imagej": True, "metadata": {"axes": "TYX"}},
        {"ome": True, "metadata": {"axes": "ZYX"}},
        {"metadata": None, "photometric": "rgb"},
    ],
)
def test_tiff_stacks(tmp_path, options):
    stack = _stack()
    data = np.stack([stack] * 3, -1) if "photometric" in options else stack
    tifffile.imwrite(tmp_path / "raw.tif", data, **options)
    _assert_is(open_source(tmp_path / "raw.tif"), stack)


def test_an_imagej_stack_of_one_page_and_raw_planes(tmp_path):
    """ImageJ writes stacks above 4 GB so; the first directory speaks for all planes."""
    stack = _stack()
    path = tmp_path / "big.tif"
    description = f"ImageJ=1.54f\nimages={len(stack)}\nslices={len(stack)}\nunit=nm\nspacing=50\n"
    tifffile.imwrite(
        path, stack[0], metadata=None, description=description, resolution=(0.25, 0.125)
    )
    with tifffile.TiffFile(path) as tif:
        offset = tif.pages[0].dataoffsets[0]
    page = path.read_bytes()
    assert len(page) == offset + stack[0].size  # the plane lies at the end, so others can follow
    path.write_bytes(page + stack[1:].tobytes())
    source = open_source(path)
    _assert_is(source, stack)
    assert source.resolution_nm == (50.0, 8.0, 4.0)
    path.write_bytes(path.read_bytes()[:-1])
    np.testing.assert_array_equal(read_section(source, 3), stack[3])
    with pytest.raises(SourceError, match=r"section 4.*truncated"):
        read_section(source, 4)


def test_pages_of_several_sizes_are_padded_at_bottom_and_right(tmp_path):
    stack = _stack()
    with tifffile.TiffWriter(tmp_path / "raw.tif") as tif:
        for z, image in enumerate(stack):
            tif.write(image[: 40 - z, : 20 + 2 * z], metadata=None)
    expected = np.zeros((5, 40, 28), np.uint8)
    for z in range(5):
        expected[z, : 40 - z, : 20 + 2 * z] = stack[z, : 40 - z, : 20 + 2 * z]
    _assert_is(open_source(tmp_path / "raw.tif"), expected)


def test_previews_are_no_sections(tmp_path):
    stack = _stack(2)
    with tifffile.TiffWriter(tmp_path / "raw.tif") as tif:
        for image in stack:
            tif.write(image, metadata=None)
            tif.write(image[::4, ::4], metadata=None, subfiletype=1)
    _assert_is(open_source(tmp_path / "raw.tif"), stack)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {
                "imagej": True, "resolution": (250.0, 125.0),
                "metadata": {"axes": "ZYX", "spacing": 0.04, "unit": "um"},
            },
            (40.0, 8.0, 4.0),
        ),
        (
            {
                "imagej": True, "resolution": (250.0, 250.0),
                "metadata": {"axes": "ZYX", "spacing": 0.04},
            },
            None,
        ),
        (
            {
                "imagej": True, "resolution": (250.0, 250.0),
                "metadata": {"axes": "ZYX", "unit": "um"},
            },
            None,
        ),
        (
            {
                "ome": True,
                "metadata": {
                    "axes": "ZYX", "PhysicalSizeX": 4.5, "PhysicalSizeXUnit": "nm",
                    "PhysicalSizeY": 0.004, "PhysicalSizeZ": 0.05, "PhysicalSizeZUnit": "µm",
                },
            },
            (50.0, 4.0, 4.5),
        ),
        ({"ome": True, "metadata": {"axes": "ZYX", "PhysicalSizeX": 4.5}}, None),
        # 72 dpi and the like say nothing about a microscope.
        ({"metadata": None, "resolution": (72, 72), "resolutionunit": "INCH"}, None),
    ],
)  # fmt: skip
def test_voxel_size_only_if_all_of_it_is_stated(tmp_path, options, expected):
    tifffile.imwrite(tmp_path / "raw.tif", _stack(), **options)
    found = open_source(tmp_path / "raw.tif").resolution_nm
    assert found == (pytest.approx(expected) if expected else None)


@pytest.mark.parametrize("dtype", [np.uint16, np.float32, np.int8, np.bool_])
def test_other_depths_are_refused_with_a_way_out(tmp_path, dtype):
    tifffile.imwrite(tmp_path / "raw.tif", _stack().astype(dtype), metadata=None)
    with pytest.raises(SourceError, match=r"raw\.tif has \w+ pixels; expected uint8.*8-bit"):
        open_source(tmp_path / "raw.tif")


@pytest.mark.parametrize("axes", ["ZCYX", "TZYX"])
def test_several_channels_or_times_are_refused(tmp_path, axes):
    data = np.stack([_stack(), _stack()], 1 if axes == "ZCYX" else 0)
    tifffile.imwrite(tmp_path / "raw.tif", data, imagej=True, metadata={"axes": axes})
    with pytest.raises(SourceError, match=f"axes {axes}.*one stack"):
        open_source(tmp_path / "raw.tif")


def test_a_cut_off_stack_does_not_become_a_shorter_one(tmp_path):
    tifffile.imwrite(tmp_path / "raw.tif", _stack(), metadata=None)
    whole = (tmp_path / "raw.tif").read_bytes()
    refused = 0
    for length in range(0, len(whole), 97):
        (tmp_path / "raw.tif").write_bytes(whole[:length])
        try:
            source = open_source(tmp_path / "raw.tif")
        except SourceError:
            refused += 1
            continue
        assert source.shape[0] == 5
        with pytest.raises(SourceError, match="section"):
            [read_section(source, z) for z in range(5)]
    assert refused > 10


def test_a_damaged_page_costs_its_section_only(tmp_path):
    stack = _stack()
    path = tmp_path / "raw.tif"
    tifffile.imwrite(path, stack, metadata=None, compression="zlib")
    with tifffile.TiffFile(path) as tif:
        offset, size = tif.pages[2].dataoffsets[0], tif.pages[2].databytecounts[0]
    data = bytearray(path.read_bytes())
    data[offset : offset + size] = b"\0" * size
    path.write_bytes(data)
    source = open_source(path)
    for z in (0, 1, 3, 4):
        np.testing.assert_array_equal(read_section(source, z), stack[z])
    with pytest.raises(SourceError, match=r"section 2 of .*raw\.tif cannot be decoded"):
        read_section(source, 2)


# Folders ----------------------------------------------------------------------------------------


def test_a_folder_in_natural_order(tmp_path):
    stack = _stack(12)
    for z, image in enumerate(stack):
        if z % 2:
            _png(tmp_path / f"s{z}.png", image)
        else:
            tifffile.imwrite(tmp_path / f"s{z}.TIF", image, metadata=None)
    (tmp_path / "notes.txt").write_text("taken on a Tuesday")
    (tmp_path / ".DS_Store").write_bytes(b"\0")
    source = open_source(tmp_path)
    assert source.names == tuple(f"s{z}" for z in range(12))
    _assert_is(source, stack)


@given(st.lists(st.text("az01_", min_size=1, max_size=6), unique=True), st.randoms())
def test_the_order_of_names_does_not_depend_on_the_listing(names, random):
    shuffled = random.sample(names, len(names))
    assert sorted(names, key=natural_key) == sorted(shuffled, key=natural_key)


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_numbers_in_names_are_numbers(a, b):
    in_order = sorted([f"z{a}.tif", f"z{b}.tif"], key=natural_key)
    assert in_order == [f"z{min(a, b)}.tif", f"z{max(a, b)}.tif"]


def test_sections_of_several_sizes_in_a_folder(tmp_path):
    _png(tmp_path / "0.png", np.full((10, 20), 7, np.uint8))
    _png(tmp_path / "1.png", np.full((12, 8), 9, np.uint8))
    expected = np.zeros((2, 12, 20), np.uint8)
    expected[0, :10], expected[1, :, :8] = 7, 9
    _assert_is(open_source(tmp_path), expected)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("1.png", b""),
        ("1.png", b"this is no image"),
        ("1.tif", b"II*\0\x08\0\0\0"),
        ("1.png", "truncated"),
        ("1.tif", "16 bit"),
        ("1.tif", "two pages"),
    ],
)
def test_a_file_that_cannot_be_used_costs_its_section_only(tmp_path, name, content):
    stack = _stack(3)
    for z in (0, 2):
        _png(tmp_path / f"{z}.png", stack[z])
    path = tmp_path / name
    if content == "truncated":
        path.write_bytes(imagecodecs.png_encode(stack[1])[:-40])
    elif content == "16 bit":
        tifffile.imwrite(path, stack[1].astype(np.uint16), metadata=None)
    elif content == "two pages":
        tifffile.imwrite(path, stack[:2], metadata=None)
    else:
        path.write_bytes(content)
    source = open_source(tmp_path)
    assert source.shape == stack.shape
    np.testing.assert_array_equal(read_section(source, 2), stack[2])
    with pytest.raises(SourceError, match=rf"{name}"):
        read_section(source, 1)


def test_a_section_that_grew_since_the_source_was_opened_is_refused(tmp_path):
    _png(tmp_path / "0.png", np.zeros((4, 4), np.uint8))
    source = open_source(tmp_path)
    _png(tmp_path / "0.png", np.zeros((5, 4), np.uint8))
    with pytest.raises(SourceError, match="changed since the source was opened"):
        read_section(source, 0)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "does not exist or is empty; expected a multi-page TIFF"),
        (
            ["a.jpg", "b.txt"],
            r"holds no sections; found a\.jpg, b\.txt\. Expected a multi-page TIFF",
        ),
        ([".z1.png"], r"holds no sections: expected files ending in \.tif, \.tiff, \.png"),
        (["z1.png", "z1.tif"], "2 files for section 'z1'"),
        (["z1.png", "z2.png"], "none of the 2 images can be used.*not a PNG"),
    ],
)
def test_folders_that_are_no_source(tmp_path, files, message):
    for name in files:
        (tmp_path / name).write_bytes(b"junk")
    with pytest.raises(SourceError, match=message):
        open_source(tmp_path)


def test_what_is_not_there_or_of_no_known_kind(tmp_path):
    with pytest.raises(
        SourceError, match="nowhere does not exist or is empty; expected a multi-page"
    ):
        open_source(tmp_path / "nowhere")
    (tmp_path / "a.mrc").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"a\.mrc is a file of an unknown kind"):
        open_source(tmp_path / "a.mrc")
    (tmp_path / "a.tif").write_bytes(b"junk")
    with pytest.raises(SourceError, match="not a TIFF file"):
        open_source(tmp_path / "a.tif")
    (tmp_path / "a.png").write_bytes(b"\x89PNG")
    with pytest.raises(SourceError, match="single PNG image; give its folder"):
        open_source(tmp_path / "a.png")


def test_a_kind_shows_in_the_content_not_in_the_name(tmp_path):
    stack = _stack(3)
    tifffile.imwrite(tmp_path / "raw.dat", stack, metadata=None, photometric="minisblack")
    _assert_is(open_source(tmp_path / "raw.dat"), stack)
    folder = tmp_path / "folder"
    folder.mkdir()
    _png(folder / "0.tif", stack[0])
    tifffile.imwrite(folder / "1.tif", stack[1], metadata=None)
    tifffile.imwrite(folder / "2.png", stack[2], metadata=None)
    _assert_is(open_source(folder), stack)


def test_camera_tiles_are_no_sections_yet(tmp_path):
    _png(tmp_path / "a.png", _stack(1)[0])
    (tmp_path / "positions.csv").write_text("file,section,y,x\na.png,0,0,0\n")
    with pytest.raises(SourceError, match="stitch them first: petalign stitch"):
        open_source(tmp_path)


# Grey values ------------------------------------------------------------------------------------


def test_grey_saved_as_colour_comes_back_as_it_was():
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    np.testing.assert_array_equal(to_grey(np.stack([grey] * 3, -1), "x"), grey)
    np.testing.assert_array_equal(to_grey(grey[..., None], "x"), grey)


def test_colour_is_luminance_and_transparent_is_no_data():
    image = np.array(
        [[[255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 1], [90, 90, 90, 0]]], np.uint8
    )
    np.testing.assert_array_equal(to_grey(image, "x"), [[76, 150, 29, 0]])
    pair = np.array([[[90, 255], [90, 0]]], np.uint8)
    np.testing.assert_array_equal(to_grey(pair, "x"), [[90, 0]])


def test_white_is_zero_and_palettes(tmp_path):
    image = _stack(1)[0]
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="miniswhite", metadata=None)
    np.testing.assert_array_equal(read_section(open_source(tmp_path / "a.tif"), 0), 255 - image)
    ramp = np.tile(np.arange(255, -1, -1, dtype=np.uint16) * 257, (3, 1))
    tifffile.imwrite(tmp_path / "b.tif", image, photometric="palette", colormap=ramp, metadata=None)
    np.testing.assert_array_equal(read_section(open_source(tmp_path / "b.tif"), 0), 255 - image)


# Zarr -------------------------------------------------------------------------------------------


def _zarr(path: str, stack, **options):
    array = zarr.create_array(path, shape=stack.shape, dtype=stack.dtype, **options)
    array[:] = stack
    return array


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("chunks", [(1, 16, 16), (4, 16, 16)])
def test_zarr_arrays(tmp_path, version, chunks):
    stack = _stack()
    _zarr(f"{tmp_path}/raw.zarr", stack, chunks=chunks, zarr_format=version)
    source = open_source(tmp_path / "raw.zarr")
    assert source.resolution_nm is None
    _assert_is(source, stack)
    _assert_is(pickle.loads(pickle.dumps(source)), stack)


def test_arrays_with_leading_axes_of_length_one_and_single_sections(tmp_path):
    stack = _stack()
    _zarr(f"{tmp_path}/5d", stack[None, None], chunks=(1, 1, 2, 16, 16))
    _assert_is(open_source(tmp_path / "5d"), stack)
    _zarr(f"{tmp_path}/2d", stack[0], chunks=(16, 16))
    _assert_is(open_source(tmp_path / "2d"), stack[:1])


def _ome_group(path: Path, stack, version: str, axes: str = "zyx") -> None:
    """Write an OME-Zarr image of two levels, as its specification words it."""
    v3 = version == "0.5"
    data = stack.reshape((1,) * (len(axes) - 3) + stack.shape)
    kinds = {"t": "time", "c": "channel"}
    image = {
        "version": version,
        "axes": [
            {"name": a, "type": kinds.get(a, "space")}
            | ({"unit": "micrometer"} if a in "zyx" else {})
            for a in axes
        ],
        "datasets": [
            {
                "path": f"s{k}",
                "coordinateTransformations": [
                    {
                        "type": "scale",
                        "scale": [1.0] * (len(axes) - 3) + [0.05, 0.004 * 2**k, 0.004],
                    }
                ],
            }
            for k in range(2)
        ],
    }
    path.mkdir(parents=True)
    if v3:
        document = {
            "zarr_format": 3, "node_type": "group",
            "attributes": {"ome": {"version": version, "multiscales": [image]}},
        }  # fmt: skip
        (path / "zarr.json").write_text(json.dumps(document))
    else:
        (path / ".zgroup").write_text('{"zarr_format": 2}')
        (path / ".zattrs").write_text(json.dumps({"multiscales": [image]}))
    chunks = (1,) * (len(axes) - 2) + (16, 16)
    _zarr(f"{path}/s0", data, chunks=chunks, zarr_format=3 if v3 else 2)
    _zarr(f"{path}/s1", data[..., ::2, :], chunks=chunks, zarr_format=3 if v3 else 2)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["zyx", "tczyx"])
def test_ome_zarr_gives_its_finest_level(tmp_path, version, axes):
    stack = _stack()
    _ome_group(tmp_path / "raw.ome.zarr", stack, version, axes)
    source = open_source(tmp_path / "raw.ome.zarr")
    assert source.resolution_nm == pytest.approx((50.0, 4.0, 4.0))
    _assert_is(source, stack)


def test_zarr_in_s3(s3_root, tmp_path):
    stack = _stack()
    _ome_group(tmp_path / "raw", stack, "0.5")
    for key, _, _ in store.walk(f"{tmp_path}/raw"):
        store.create_bytes(store.join(s3_root, "raw", key), (tmp_path / "raw" / key).read_bytes())
    source = open_source(f"{s3_root}/raw")
    _assert_is(source, stack)
    assert len(set(source.describe()["sections"])) == len(stack)
    with pytest.raises(SourceError, match="nothing does not exist or is empty"):
        open_source(f"{s3_root}/nothing")


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((2, 3, 8, 8), {}, r"shape \(2, 3, 8, 8\); expected \(z, y, x\)"),
        ((8,), {}, "expected"),
        ((3, 8, 8), {"dimension_names": ("x", "y", "z")}, "in this order"),
    ],
)
def test_zarr_arrays_that_are_no_stack(tmp_path, shape, options, message):
    zarr.create_array(f"{tmp_path}/a", shape=shape, chunks=shape, dtype="uint8", **options)
    with pytest.raises(SourceError, match=message):
        open_source(tmp_path / "a")


def test_zarr_that_cannot_be_understood(tmp_path):
    zarr.create_array(f"{tmp_path}/u16", shape=(2, 8, 8), chunks=(1, 8, 8), dtype="uint16")
    with pytest.raises(SourceError, match="uint16 pixels; expected uint8"):
        open_source(tmp_path / "u16")
    zarr.create_group(f"{tmp_path}/group").create_array(
        "raw", shape=(2, 8, 8), chunks=(1, 8, 8), dtype="uint8"
    )
    with pytest.raises(SourceError, match=r"URI of the array itself\. Below it: raw"):
        open_source(tmp_path / "group")
    (tmp_path / "junk").mkdir()
    (tmp_path / "junk" / "zarr.json").write_text("[1, 2")
    with pytest.raises(SourceError, match="not JSON"):
        open_source(tmp_path / "junk")
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "zarr.json").write_text("[1, 2]")
    with pytest.raises(SourceError, match="expected a mapping, got list"):
        open_source(tmp_path / "list")
    document = {
        "zarr_format": 3, "node_type": "group",
        "attributes": {"ome": {"multiscales": [{"datasets": []}]}},
    }  # fmt: skip
    (tmp_path / "list" / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(SourceError, match="metadata that cannot be understood"):
        open_source(tmp_path / "list")


def test_a_damaged_chunk_costs_its_sections_only(tmp_path):
    stack = _stack()
    _zarr(f"{tmp_path}/raw", stack, chunks=(1, 40, 30))
    (tmp_path / "raw/c/2/0/0").write_bytes(b"not zstd")
    source = open_source(tmp_path / "raw")
    np.testing.assert_array_equal(read_section(source, 3), stack[3])
    with pytest.raises(SourceError, match=r"section 2.*will be treated as missing"):
        read_section(source, 2)


# Descriptions -----------------------------------------------------------------------------------


def _make(kind: str, path: Path):
    stack = _stack()
    if kind == "tiff":
        tifffile.imwrite(path, stack, metadata=None)
    elif kind == "folder":
        path.mkdir()
        for z in range(5):
            _png(path / f"{z}.png", stack[z])
    else:
        _zarr(str(path), stack, chunks=(1, 16, 16), zarr_format=int(kind[-1]))


@pytest.mark.parametrize("kind", ["tiff", "folder", "zarr2", "zarr3"])
def test_a_description_is_json_and_belongs_to_the_content(tmp_path, kind):
    name = "raw.tif" if kind == "tiff" else "raw"
    _make(kind, tmp_path / name)
    first = open_source(tmp_path / name).describe()
    assert json.loads(json.dumps(first)) == first
    assert str(tmp_path) not in json.dumps(first)
    assert open_source(tmp_path / name).describe() == first
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    if kind == "tiff":
        shutil.copy2(tmp_path / name, elsewhere / name)
    else:
        shutil.copytree(tmp_path / name, elsewhere / name)
    assert open_source(elsewhere / name).describe() == first


@pytest.mark.parametrize("kind", ["folder", "zarr2", "zarr3"])
def test_a_changed_section_is_told_from_the_others(tmp_path, kind):
    _make(kind, tmp_path / "raw")
    before = open_source(tmp_path / "raw").describe()
    if kind == "folder":
        _png(tmp_path / "raw/3.png", np.zeros((40, 30), np.uint8))
    else:
        zarr.open_array(f"{tmp_path}/raw", mode="r+")[3, :16, :16] = 9
    after = open_source(tmp_path / "raw").describe()
    changed = [z for z in range(5) if before["sections"][z] != after["sections"][z]]
    assert changed == [3]


# Real data --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape"), [("vnc_stack1", (20, 1024, 1024)), ("aligntk_z00-07", (8, 1024, 1024))]
)
def test_real_stacks(name, shape):
    path = DATA / name / "raw.tif"
    if not path.exists():
        pytest.skip(f"the set {name} is not below {DATA}; set ALIGN_TEST_DATA")
    source = open_source(path)
    assert source.shape == shape
    np.testing.assert_array_equal(read_section(source, 5), tifffile.imread(path, key=5))


def test_real_folder_of_colour_pngs_in_two_sizes():
    folder = DATA / "ultrasound_usgra" / "images"
    if not folder.exists():
        pytest.skip(f"the set ultrasound_usgra is not below {DATA}; set ALIGN_TEST_DATA")
    source = open_source(folder)
    assert source.shape == (204, 632, 761)
    assert read_section(source, 0).any()


@pytest.mark.parametrize(
    "document",
    [
        "[" * 50_000,
        '{"node_type": "group", "attributes": 7}',
        '{"node_type": "group", "attributes": {"ome": 7}}',
        '{"node_type": "group", "attributes": {"ome": {"multiscales": 7}}}',
        '{"node_type": "group", "attributes": {"ome": {"multiscales": [{"datasets": [7]}]}}}',
        '{"node_type": "group", "attributes": {"ome": {"multiscales": [{"axes": 7}]}}}',
        "7",
    ],
)
def test_metadata_of_groups_that_make_no_sense_are_one_clear_error(tmp_path, document):
    (tmp_path / "zarr.json").write_text(document)
    with pytest.raises(SourceError, match=str(tmp_path)):
        open_source(tmp_path)
