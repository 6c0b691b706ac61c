"""What is said of a growing volume's sections, on folders and in S3."""

from __future__ import annotations

import numpy as np
import pytest
import zarr

from storage import store
from storage.errors import ConflictError, CorruptError, MismatchError
from storage.growing import Listing, grow, levels_to_write, read_listing, write_listing
from storage.sections import open_source
from storage.volume import create_image, write_region


@pytest.fixture
def volume(root):
    """A volume of two sections and two levels."""
    arrays = create_image(
        root, shape=(2, 8, 8), chunk=(1, 8, 8), shard=(1, 8, 8), resolution_nm=(40, 4, 4), mips=2,
        name="raw",
    )  # fmt: skip
    for array in arrays:
        for z in range(2):
            fill(array, z, z + 1)
    return root


def fill(array, z: int, value: int) -> None:
    ny, nx = array.shape[1:]
    write_region(
        array, (slice(z, z + 1), slice(0, ny), slice(0, nx)), np.full((1, ny, nx), value, np.uint8)
    )


def test_sections_beyond_the_end_are_seen_once_the_volume_has_grown(volume):
    before = open_source(volume).describe()["sections"]
    for array in levels_to_write(volume, 3):
        fill(array, 2, 9)
    assert open_source(volume).shape == (2, 8, 8)
    grow(volume, 3)
    grow(volume, 2)  # never smaller again
    source = open_source(volume)
    assert source.shape == (3, 8, 8)
    assert source.read_rows(2, 0, 8).max() == 9
    assert source.describe()["sections"][:2] == before
    assert source.fingerprint(1) == before[1]


def test_a_replaced_section_has_another_fingerprint_and_no_other_has(volume):
    before = open_source(volume).describe()["sections"]
    fill(levels_to_write(volume, 2)[0], 1, 77)
    after = open_source(volume).describe()["sections"]
    assert (after[0], after[1] != before[1]) == (before[0], True)


def test_two_who_write_the_names_at_once_do_not_lose_one(volume):
    write_listing(volume, Listing(("a", "b"), ("", "")))
    first, second = read_listing(volume), read_listing(volume)
    write_listing(volume, Listing(("a", "b", "c"), ("", "", "1"), first.etag))
    with pytest.raises(ConflictError):
        write_listing(volume, Listing(("a", "b", "d"), ("", "", "2"), second.etag))
    assert read_listing(volume).names == ("a", "b", "c")


@pytest.mark.parametrize(
    "value",
    [
        [],
        {"names": ["a"]},
        {"names": ["a", "b"], "images": ["1"]},
        {"names": [1, 2], "images": ["", ""]},
        {"names": ["a\n", "b"], "images": ["", ""]},
        {"names": ["a" * 201, "b"], "images": ["", ""]},
    ],
)
def test_a_list_that_is_none_does_not_hinder_reading_the_voxels(volume, value):
    store.replace_json(f"{volume}/sections.json", value)
    with pytest.raises(CorruptError, match=r"sections\.json does not hold"):
        read_listing(volume)
    assert len(open_source(volume).names) == 2


def test_volumes_of_deep_objects_cannot_grow(tmp_path):
    uri = tmp_path.as_uri()
    create_image(
        uri, shape=(4, 8, 8), chunk=(2, 8, 8), shard=None, resolution_nm=(40, 4, 4), mips=1,
        name="raw",
    )  # fmt: skip
    with pytest.raises(MismatchError, match="2 sections in one object"):
        levels_to_write(uri, 5)


def test_other_pyramids_cannot_grow(tmp_path):
    zarr.create_group(str(tmp_path / "other"))
    with pytest.raises(MismatchError, match="not an OME-Zarr pyramid"):
        levels_to_write((tmp_path / "other").as_uri(), 5)
