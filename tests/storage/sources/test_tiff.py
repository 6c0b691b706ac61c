"""Pages of every layout, read by bands: what a band needs is read, and nothing else."""

from __future__ import annotations

import shutil

import imagecodecs
import numpy as np
import pytest
import tifffile

from storage import store
from storage.errors import AccessError, SourceError, UnavailableError
from storage.sections import open_source, read_section
from storage.sources import files, tiff, tiffpage


def _stack(nz: int = 3, ny: int = 70, nx: int = 50):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (nz, ny, nx)).astype(np.uint8)


@pytest.mark.parametrize("bigtiff", [False, True])
@pytest.mark.parametrize(
    "layout",
    [
        {"rowsperstrip": 70},
        {"rowsperstrip": 7},
        {"rowsperstrip": 1},
        {"tile": (16, 16)},
        {"tile": (32, 64)},
    ],
)
@pytest.mark.parametrize(
    "codec",
    [
        {},
        {"compression": "zlib"},
        {"compression": "zlib", "predictor": True},
        {"compression": "lzw", "predictor": True},
        {"compression": "zstd"},
        {"compression": "packbits"},
    ],
)
@pytest.mark.parametrize("colour", [None, "contig", "separate"])
def test_any_band_of_any_layout(tmp_path, layout, codec, colour, bigtiff):
    stack = _stack(2)
    options = {"photometric": "minisblack"}
    data = stack
    if colour == "contig":
        options, data = {"photometric": "rgb"}, np.stack([stack] * 3, -1)
    elif colour == "separate":
        options = {"photometric": "rgb", "planarconfig": "separate"}
        data = np.stack([stack] * 3, 1)
    path = tmp_path / "raw.tif"
    tifffile.imwrite(path, data, metadata=None, bigtiff=bigtiff, **layout, **codec, **options)
    source = open_source(path)
    assert source.shape == stack.shape
    for y0, y1 in ((0, 70), (0, 1), (69, 70), (6, 8), (15, 33), (31, 65)):
        np.testing.assert_array_equal(source.read_rows(1, y0, y1), stack[1, y0:y1])


def test_tiles_that_are_images_themselves(tmp_path):
    path = tmp_path / "raw.tif"
    tifffile.imwrite(path, _stack(1)[0], metadata=None, compression="png", tile=(32, 32))
    np.testing.assert_array_equal(open_source(path).read_rows(0, 9, 66), _stack(1)[0, 9:66])


def test_jpeg_tiles_are_decoded_as_tifffile_does(tmp_path):
    y, x = np.mgrid[:70, :50]
    image = (100 + 50 * np.sin(y / 9) * np.cos(x / 7)).astype(np.uint8)
    path = tmp_path / "raw.tif"
    tifffile.imwrite(path, image, metadata=None, compression="jpeg", tile=(16, 16))
    np.testing.assert_array_equal(read_section(open_source(path), 0), tifffile.imread(path))


def test_tiles_that_a_sparse_file_leaves_out_are_no_data(tmp_path):
    image = _stack(1)[0]
    path = tmp_path / "raw.tif"
    tiles = (None if i == 4 else tile for i, tile in enumerate(_tiles(image)))
    with tifffile.TiffWriter(path) as tif:
        tif.write(
            tiles, shape=image.shape, dtype=image.dtype, tile=(16, 16), compression="zlib",
            metadata=None,
        )  # fmt: skip
    expected = image.copy()
    expected[16:32, :16] = 0
    np.testing.assert_array_equal(read_section(open_source(path), 0), expected)


def _tiles(image):
    padded = np.zeros((80, 64), np.uint8)
    padded[: image.shape[0], : image.shape[1]] = image
    for y in range(0, 80, 16):
        for x in range(0, 64, 16):
            yield padded[y : y + 16, x : x + 16].copy()


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_strip_that_is_gone_costs_its_rows_only(tmp_path, compression):
    image = _stack(1)[0]
    path = tmp_path / "raw.tif"
    tifffile.imwrite(path, image, metadata=None, compression=compression, rowsperstrip=10)
    with tifffile.TiffFile(path) as tif:
        last = tif.pages[0].dataoffsets[-1]
    path.write_bytes(path.read_bytes()[: last + 3])
    source = open_source(path)
    np.testing.assert_array_equal(source.read_rows(0, 0, 60), image[:60])
    with pytest.raises(SourceError, match=r"section 0 of .* lies beyond the end of the file"):
        source.read_rows(0, 59, 61)


def test_pieces_that_are_too_large_are_refused_with_a_way_out(tmp_path, monkeypatch):
    monkeypatch.setattr(tiffpage, "MAX_PIECE_BYTES", 1000)
    path = tmp_path / "raw.tif"
    tifffile.imwrite(path, _stack(1)[0], metadata=None, compression="zlib", rowsperstrip=70)
    with pytest.raises(SourceError, match=r"strips or tiles of 70 x 50 px.*tiffcp -r 64"):
        open_source(path)
    tifffile.imwrite(path, _stack(1)[0], metadata=None, rowsperstrip=70)
    assert open_source(path).shape == (1, 70, 50)  # uncompressed, any row can be read


def test_an_uncompressed_band_reads_its_bytes_only(tmp_path, monkeypatch):
    image = _stack(1)[0]
    path = tmp_path / "raw.tif"
    tifffile.imwrite(path, image, metadata=None, rowsperstrip=70)
    source = open_source(path)
    source.read_rows(0, 0, 1)
    asked = []
    original = files.read_at

    def counting(file, offset, n, what):
        asked.append(n)
        return original(file, offset, n, what)

    monkeypatch.setattr(tiffpage, "read_at", counting)
    np.testing.assert_array_equal(source.read_rows(0, 20, 30), image[20:30])
    assert asked == [10 * 50]


# What identifies a section -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{"metadata": None}, {"metadata": None, "compression": "zlib", "rowsperstrip": 16}, {}],
)
def test_the_changed_section_of_a_stack_is_found(tmp_path, options):
    stack = _stack(4)
    path = tmp_path / "raw.tif"
    options = {**options, "photometric": "minisblack"}
    tifffile.imwrite(path, stack, **options)
    before = open_source(path).describe()["sections"]
    changed = stack.copy()
    changed[2, 5, 5] += 1
    tifffile.imwrite(path, changed, **options)
    after = open_source(path).describe()["sections"]
    assert [z for z in range(4) if before[z] != after[z]] == [2]
    tifffile.imwrite(path, np.concatenate([stack, changed[2:3]]), **options)
    longer = open_source(path).describe()["sections"]
    assert longer == [*before, after[2]]


def test_the_planes_of_an_imagej_stack_have_fingerprints_of_their_own(tmp_path):
    stack = _stack(3)
    stack[2] = stack[0]
    path = tmp_path / "big.tif"
    tifffile.imwrite(
        path, stack[0], metadata=None, description="ImageJ=1.54f\nimages=3\nslices=3\n"
    )
    path.write_bytes(path.read_bytes() + stack[1:].tobytes())
    first, second, third = open_source(path).describe()["sections"]
    assert first == third != second


def test_large_stacks_are_told_apart_by_their_file(tmp_path, monkeypatch):
    monkeypatch.setattr(tiff, "DIGESTED_BYTES", 1000)
    path = tmp_path / "raw.tif"
    tifffile.imwrite(path, _stack(), metadata=None, photometric="minisblack")
    before = open_source(path).describe()["sections"]
    assert len(set(before)) == 3
    assert open_source(path).describe()["sections"] == before
    with path.open("ab") as file:
        file.write(b"\0")
    assert not set(before) & set(open_source(path).describe()["sections"])


# Places ------------------------------------------------------------------------------------------


@pytest.fixture
def image_folder(root, tmp_path):
    """Return a folder of two sections on each kind of storage, and the sections."""
    stack = _stack(2)
    tifffile.imwrite(tmp_path / "a.tif", stack[0], metadata=None, compression="zlib", tile=(16, 16))
    (tmp_path / "b.png").write_bytes(imagecodecs.png_encode(stack[1]))
    for name in ("a.tif", "b.png"):
        store.create_bytes(f"{root}/raw/{name}", (tmp_path / name).read_bytes())
    return f"{root}/raw", stack


def test_image_files_are_read_where_they_are(image_folder):
    uri, stack = image_folder
    store.create_bytes(f"{uri}/deeper/c.png", b"not a section")
    source = open_source(uri)
    assert source.names == ("a", "b")
    for z in range(2):
        np.testing.assert_array_equal(source.read_rows(z, 30, 50), stack[z, 30:50])
    np.testing.assert_array_equal(read_section(open_source(f"{uri}/a.tif"), 0), stack[0])
    before = source.describe()["sections"]
    assert before == [source.fingerprint(z) for z in range(2)]
    store.replace_bytes(f"{uri}/b.png", imagecodecs.png_encode(stack[0]))
    after = open_source(uri).describe()["sections"]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False]


def test_a_file_that_is_gone_costs_its_section(image_folder):
    uri, stack = image_folder
    source = open_source(uri)
    store.delete(f"{uri}/a.tif")
    with pytest.raises(SourceError, match=r"section 0, file .*a\.tif cannot be read.*not exist"):
        source.read_rows(0, 0, 5)
    np.testing.assert_array_equal(read_section(source, 1), stack[1])


def test_an_object_that_is_replaced_while_it_is_read_is_not_mixed(s3_root):
    uri = f"{s3_root}/a"
    store.create_bytes(uri, bytes(3 * 2**20))
    with files.open_file(uri) as file:
        assert file.read(10) == bytes(10)
        store.replace_bytes(uri, b"\1" * 3 * 2**20)
        file.seek(2 * 2**20)
        with pytest.raises(UnavailableError, match="replaced while it was read"):
            file.read(10)


def test_no_access_and_no_answer_are_no_damage(image_folder, monkeypatch):
    """Else one lost password would turn a volume into no data."""
    uri, _ = image_folder
    source = open_source(uri)
    if uri.startswith("s3:"):
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    else:

        def refuse(*args):
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("pathlib.Path.open", refuse)
    with pytest.raises(AccessError):
        source.read_rows(0, 0, 5)


def test_a_lost_part_of_the_disk_is_damage_and_a_silent_one_is_not():
    with (
        pytest.raises(SourceError, match="section 3 cannot be read: Input/output error"),
        files.damage_named("section 3"),
        store.errors_named("file:///a", "read"),
    ):
        raise OSError(5, "Input/output error")
    with (
        pytest.raises(UnavailableError),
        files.damage_named("section 3"),
        store.errors_named("file:///a", "read"),
    ):
        raise OSError(110, "Connection timed out")
    with pytest.raises(MemoryError), files.damage_named("section 3"):
        raise MemoryError


def test_a_stack_is_the_same_from_another_folder(tmp_path):
    tifffile.imwrite(tmp_path / "raw.tif", _stack(), metadata=None, photometric="minisblack")
    first = open_source(tmp_path / "raw.tif").describe()
    (tmp_path / "other").mkdir()
    shutil.copy(tmp_path / "raw.tif", tmp_path / "other" / "renamed.tif")
    assert open_source(tmp_path / "other" / "renamed.tif").describe() == first
