"""A small volume with labels: blobs, and where they are bright."""

import cv2
import numpy as np

from storage.grid import Box
from storage.volume import create_image, write


def voxels(sections=8, side=96):
    random = np.random.default_rng(0)
    noise = random.normal(size=(sections, side, side))
    images = np.stack([cv2.GaussianBlur(each, (0, 0), 4) for each in noise])
    images = np.clip(images / images.std() * 50 + 128, 0, 255).astype(np.uint8)
    return images, np.where(images > 140, 255, 0).astype(np.uint8)


def write_zarr(uri, images, labels):
    for name, found in (("images", images), ("labels", labels)):
        (array,) = create_image(
            f"{uri}/{name}", shape=found.shape, chunk=(1, 32, 32), shard=(1, 96, 96),
            resolution_nm=(40.0, 4.0, 4.0), mips=1, name=name,
        )  # fmt: skip
        write(array, Box((0, 0, 0), found.shape, 0), found)
