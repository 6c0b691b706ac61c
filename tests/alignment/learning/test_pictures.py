"""Folders of pictures as labelled volumes."""

import cv2
import numpy as np
import pytest

from alignment.errors import DataError
from alignment.learning.segmentation.config import parse_segment_config
from alignment.learning.segmentation.labelled import open_samples
from alignment.learning.segmentation.pictures import import_pictures

SIZES = ((40, 60), (80, 120), (44, 40))


@pytest.fixture
def folders(tmp_path):
    images, labels = tmp_path / "pictures", tmp_path / "masks"
    for folder in (images, labels):
        folder.mkdir()
    for n, (ny, nx) in enumerate(SIZES):
        mask = np.zeros((ny, nx, 3), np.uint8)
        mask[: ny // 2] = (0, 0, 128)  # BGR: dark red
        mask[:, : nx // 2] = (0, 128, 0)
        cv2.imwrite(str(images / f"{n}.png"), np.full((ny, nx, 3), 50 * (n + 1), np.uint8))
        cv2.imwrite(str(labels / f"{n}.png"), mask)
    return images, labels


def test_pictures_of_any_size_and_colour_become_sections_with_classes(folders, tmp_path):
    assert import_pictures(*folders, str(tmp_path / "data"), (32, 48)) == 3
    config = parse_segment_config(
        {
            "data": {"label_values": (38, 75)},
            "training": {
                "network": {
                    "architecture": "unet", "layers": 1, "padding": "same", "classes": 3,
                    "head": "softmax",
                },
                "patch_px": (1, 32, 48), "held_out": 1,
            },
        }
    )  # fmt: skip
    (batch,) = open_samples(str(tmp_path / "data"), config).held_out()
    np.testing.assert_allclose(batch.images, 150 / 255, atol=1e-6)
    expected = np.zeros((32, 48), int)
    expected[:16] = 1
    expected[:, :24] = 2
    np.testing.assert_array_equal(batch.labels[0], expected)


def test_a_picture_without_a_mask_is_named(folders, tmp_path):
    (folders[1] / "1.png").unlink()
    with pytest.raises(DataError, match=r"of which 1 have no mask .* such as 1\.png"):
        import_pictures(*folders, str(tmp_path / "data"), (32, 48))
