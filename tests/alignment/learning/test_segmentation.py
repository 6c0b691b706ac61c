"""Labelled volumes: read from zarr or files alike, split into what is learned and what judges."""

import numpy as np
import pytest
import tifffile

from alignment.errors import ConfigError, DataError
from alignment.learning.segmentation.config import parse_segment_config
from alignment.learning.segmentation.labelled import open_samples
from storage.cache import open_cache
from tests.alignment.learning.labelled_volume import voxels, write_zarr

NETWORK = {"architecture": "unet", "layers": 2, "features_root": 2, "padding": "same"}


def settings(**data):
    training = {"network": NETWORK, "patch_px": (1, 32, 48), "held_out": 3}
    return parse_segment_config({"data": data, "training": training})


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("volume")
    images, labels = voxels()
    write_zarr(str(folder), images, labels)
    tifffile.imwrite(folder / "raw.tif", images)
    tifffile.imwrite(folder / "membranes.tif", labels)
    return folder


def test_samples_are_the_same_from_a_zarr_with_and_without_a_cache_and_from_files(place, tmp_path):
    cache = open_cache(str(tmp_path / "cache"), 20_000_000, 2**16)
    files = settings(images="raw.tif", labels="membranes.tif")
    ways = [
        open_samples(str(place), settings(), cache),
        open_samples(str(place), settings()),
        open_samples(str(place), files),
    ]
    for number in range(6):
        first, *others = [some.training(number) for some in ways]
        for other in others:
            for ours, theirs in zip(first, other, strict=True):
                np.testing.assert_array_equal(ours, theirs)
    assert any((tmp_path / "cache").rglob("*"))


def test_the_last_sections_judge_and_are_not_learned_from(place):
    samples = open_samples(str(place), settings(held_out=0.25))
    assert (list(samples.sections), list(samples.held_out_sections)) == ([0, 1, 2, 3, 4, 5], [6, 7])
    assert len(list(samples.held_out())) == 3
    deep = parse_segment_config(
        {
            "data": {"held_out": 0.4},
            "training": {
                "network": {"architecture": "rsunet", "widths": (2, 2)}, "patch_px": (2, 32, 32),
            },
        }
    )  # fmt: skip
    samples = open_samples(str(place), deep)
    assert (list(samples.sections), list(samples.held_out_sections)) == ([0, 1, 2, 3], [5, 6])


def test_sections_kept_apart_neither_teach_nor_judge(place):
    config = settings(held_out=0.25, kept_apart=0.25)
    samples, apart = (open_samples(str(place), config, apart=each) for each in (False, True))
    assert (list(samples.sections), list(samples.held_out_sections)) == ([0, 1, 2, 3], [4, 5])
    assert list(apart.held_out_sections) == [6, 7]
    with pytest.raises(DataError, match=r"raise data\.kept_apart"):
        open_samples(str(place), settings(), apart=True)
    with pytest.raises(DataError, match=r"lower data\.held_out, data\.kept_apart"):
        open_samples(str(place), settings(held_out=0.5, kept_apart=0.5))


def test_values_of_labels_become_classes(place):
    three = parse_segment_config(
        {
            "data": {"label_values": (128, 255)},
            "training": {
                "network": {**NETWORK, "classes": 3, "head": "softmax"}, "patch_px": (1, 32, 48),
            },
        }
    )  # fmt: skip
    assert set(np.unique(open_samples(str(place), three).training(0).labels)) == {0, 2}
    assert set(np.unique(open_samples(str(place), settings()).training(0).labels)) == {0, 1}


def test_labels_of_another_size_are_refused(place, tmp_path):
    images, labels = voxels()
    tifffile.imwrite(tmp_path / "a.tif", images)
    tifffile.imwrite(tmp_path / "b.tif", labels[:, :-1])
    with pytest.raises(DataError, match="labels must have the size of their images"):
        open_samples(str(tmp_path), settings(images="a.tif", labels="b.tif"))


def test_wrong_settings_are_named():
    for values, expected in (
        ({"training": {"batch": 0}}, r"training\.batch: .* greater than or equal to 1; got 0"),
        ({"data": {"image": "x"}}, r"data\.image: no such setting; did you mean 'data\.images'"),
        (
            {"training": {"network": {"architecture": "unet", "layer": 3}}},
            r"training\.network\.layer: no such setting; did you mean 'training\.network\.layers'",
        ),
    ):
        with pytest.raises(ConfigError, match=expected):
            parse_segment_config(values)
