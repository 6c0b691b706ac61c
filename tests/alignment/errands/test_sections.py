"""Images become sections of a volume, all of them or none, and nobody else's section changes."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile
from distributed import Client
from imagecodecs import png_encode

from alignment.commands.convert import convert
from alignment.errands import sections as errand
from alignment.errands.arrivals import look_at
from alignment.errands.drive import Finding
from alignment.errands.progress import Progress
from alignment.errors import ConfigError, DataError
from alignment.pyramid import downsample
from storage.growing import read_listing
from storage.sections import open_source, read_section
from storage.store import list_names
from storage.volume import open_array, read_region

SIDE = 600
"""So that there is a second level of the pyramid."""


@pytest.fixture(scope="module")
def client():
    with Client(
        processes=False, n_workers=1, threads_per_worker=2, dashboard_address=":0"
    ) as started:
        yield started


@pytest.fixture
def ingest(tmp_path, client):
    """Return a function that brings tmp_path/incoming into tmp_path/raw.zarr."""
    (tmp_path / "incoming").mkdir()

    def ingest(**settings):
        arguments = {
            "incoming": (tmp_path / "incoming").as_uri(),
            "volume": (tmp_path / "raw.zarr").as_uri(),
        }
        progress = Progress((tmp_path / "state").as_uri(), "ingest")
        return errand.ingest(arguments | settings, client, progress)

    return ingest


def image(seed: int, ny: int = SIDE, nx: int = 64):
    return np.random.default_rng(seed).integers(1, 256, (ny, nx)).astype(np.uint8)


def drop(tmp_path, name: str, pixels) -> None:
    """Put an image where images arrive."""
    path = tmp_path / "incoming" / name
    if name.endswith(".png"):
        path.write_bytes(png_encode(pixels))
    else:
        tifffile.imwrite(path, pixels, metadata=None)


def stack(tmp_path):
    source = open_source(tmp_path / "raw.zarr")
    return source, np.array([read_section(source, z) for z in range(source.shape[0])])


def test_a_new_volume_holds_the_images_in_natural_order(tmp_path, ingest):
    for name, seed in (("s9.tif", 9), ("s10.png", 10), ("s11.tif", 11)):
        drop(tmp_path, name, image(seed))
    found = ingest(resolution_nm=[50, 8, 8])
    assert found == {"new": ["s9", "s10", "s11"], "replaced": [], "unchanged": 0, "sections": 3}
    source, voxels = stack(tmp_path)
    assert source.names == ("s9", "s10", "s11")
    assert source.resolution_nm == (50, 8, 8)
    np.testing.assert_array_equal(voxels, [image(9), image(10), image(11)])


def test_what_was_brought_in_before_is_passed_over(tmp_path, ingest):
    for name in ("a.tif", "b.tif"):
        drop(tmp_path, name, image(1))
    ingest()
    before = open_source(tmp_path / "raw.zarr").describe()
    assert ingest() == {"new": [], "replaced": [], "unchanged": 2, "sections": 2}
    assert open_source(tmp_path / "raw.zarr").describe() == before


def test_new_and_re_imaged_sections_leave_all_others_as_they_were(tmp_path, ingest):
    for z in range(4):
        drop(tmp_path, f"z{z}.tif", image(z))
    ingest()
    source, _ = stack(tmp_path)
    before = [source.fingerprint(z) for z in range(4)]
    for file in (tmp_path / "incoming").iterdir():
        file.unlink()  # a facility clears the folder
    drop(tmp_path, "z2.png", image(22))
    drop(tmp_path, "z4.tif", image(4))
    drop(tmp_path, "z5.tif", image(5))
    found = ingest()
    assert (found["new"], found["replaced"], found["sections"]) == (["z4", "z5"], ["z2"], 6)
    source, voxels = stack(tmp_path)
    np.testing.assert_array_equal(voxels, [image(s) for s in (0, 1, 22, 3, 4, 5)])
    after = source.describe()["sections"]
    assert [a == b for a, b in zip(before, after, strict=False)] == [True, True, False, True]
    coarser = open_array((tmp_path / "raw.zarr").as_uri(), "1")
    np.testing.assert_array_equal(
        read_region(coarser, (slice(2, 3), slice(None), slice(None))), downsample(image(22)[None])
    )
    assert coarser.shape[0] == 6


def test_a_volume_that_was_converted_takes_more_sections(tmp_path, ingest):
    tifffile.imwrite(tmp_path / "old.tif", np.stack([image(0), image(1)]), photometric="minisblack")
    convert(str(tmp_path / "old.tif"), str(tmp_path / "raw.zarr"))
    drop(tmp_path, "z000001.tif", image(11))
    drop(tmp_path, "z000002.tif", image(2))
    found = ingest()
    assert (found["new"], found["replaced"]) == (["z000002"], ["z000001"])
    np.testing.assert_array_equal(stack(tmp_path)[1], [image(0), image(11), image(2)])


def _truncate(path) -> None:
    path.write_bytes(path.read_bytes()[:5000])


def test_everything_that_is_wrong_is_told_at_once_and_nothing_is_written(tmp_path, ingest):
    for z in range(3):
        drop(tmp_path, f"z{z}.tif", image(z))
    ingest()
    before = open_source(tmp_path / "raw.zarr").describe()
    drop(tmp_path, "z3.tif", image(3, ny=SIDE + 1))
    drop(tmp_path, "z4.tif", image(4, ny=SIDE - 8))
    drop(tmp_path, "z5.tif", image(5).astype(np.uint16))
    drop(tmp_path, "z6.tif", image(6).astype(">f4"))
    (tmp_path / "incoming" / "z7.png").write_bytes(b"not an image at all")
    drop(tmp_path, "z8.png", image(8))
    drop(tmp_path, "z8.tif", image(8))
    drop(tmp_path, "a.tif", image(9))
    drop(tmp_path, "z9.tif", image(9))  # nothing is wrong with this one
    with pytest.raises(Finding, match="faults, nothing was written") as refusal:
        ingest()
    faults = {fault.partition(":")[0]: fault for fault in refusal.value.found["faults"]}
    assert sorted(faults) == [
        "a.tif", "z3.tif", "z4.tif", "z5.tif", "z6.tif", "z7.png", "z8.png, z8.tif"
    ]  # fmt: skip
    assert "601 x 64 px (y, x), expected 600 x 64" in faults["z3.tif"]
    assert "set pad" in faults["z4.tif"]
    assert "uint16" in faults["z5.tif"]
    assert "comes before section 'z2'" in faults["a.tif"]
    assert open_source(tmp_path / "raw.zarr").describe() == before


def test_pixels_that_cannot_be_decoded_are_found_before_anything_is_written(tmp_path, ingest):
    for z in range(3):
        drop(tmp_path, f"z{z}.png", image(z))
    _truncate(tmp_path / "incoming" / "z1.png")
    with pytest.raises(Finding, match=r"1 faults, nothing was written: z1\.png"):
        ingest()
    assert list_names((tmp_path / "raw.zarr").as_uri()) == []


def test_smaller_images_are_filled_up_if_that_is_wanted(tmp_path, ingest):
    drop(tmp_path, "a.tif", image(1))
    drop(tmp_path, "b.tif", image(2, ny=SIDE - 10, nx=60))
    ingest(pad=True)
    _, voxels = stack(tmp_path)
    np.testing.assert_array_equal(voxels[1, : SIDE - 10, :60], image(2, ny=SIDE - 10, nx=60))
    assert not voxels[1, SIDE - 10 :].any()


@pytest.mark.parametrize("stage", ["write_section", "write_listing", "grow"])
def test_a_driver_that_dies_is_made_up_for_by_the_next(tmp_path, ingest, monkeypatch, stage):
    for z in range(2):
        drop(tmp_path, f"z{z}.tif", image(z))
    ingest()
    drop(tmp_path, "z1.tif", image(11))
    drop(tmp_path, "z2.tif", image(2))
    whole = getattr(errand, stage)

    def die(*args, **kwargs):
        raise OSError("the power is gone")

    monkeypatch.setattr(errand, stage, die)
    with pytest.raises(OSError, match="power"):
        ingest()
    source, _ = stack(tmp_path)
    assert source.shape[0] == 2, "readers see no section that is not whole"
    monkeypatch.setattr(errand, stage, whole)
    ingest()
    np.testing.assert_array_equal(stack(tmp_path)[1], [image(0), image(11), image(2)])
    assert read_listing((tmp_path / "raw.zarr").as_uri()).names == ("z0", "z1", "z2")


@pytest.mark.parametrize("resolution", [[40, 4], [40, -4, 4], "fine", [1e9, 4, "x"]])
def test_a_voxel_size_that_is_none_is_refused(tmp_path, ingest, resolution):
    drop(tmp_path, "a.tif", image(1))
    with pytest.raises(ConfigError, match=r"volume\.resolution_nm"):
        ingest(resolution_nm=resolution)
    assert list_names((tmp_path / "raw.zarr").as_uri()) == []


def test_a_folder_below_the_volume_is_refused(tmp_path, ingest):
    with pytest.raises(DataError, match="lie in each other"):
        ingest(incoming=(tmp_path / "raw.zarr" / "new").as_uri())


def test_an_empty_folder_is_refused(tmp_path, ingest):
    with pytest.raises(DataError, match="holds no images"):
        look_at((tmp_path / "incoming").as_uri(), (tmp_path / "raw.zarr").as_uri())
