"""Feature images of one tissue, and matches over them, for the tests of the engine."""

import numpy as np
from scipy import ndimage as ndi

from alignment.ncc import FeatureImage, Job

SIZES = [(8, 13), (11, 17), (33, 65), (64, 84), (96, 108), (64, 128)]


def features(shape, seed):
    noise = ndi.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.5)
    return (noise / noise.std()).clip(-4, 4).astype(np.float32)


def pair(*, holes, shape=(300, 340)):
    """Two images of the same tissue, one moved by (3, -2), with noise of their own."""
    tissue = features(shape, 0)
    valid = np.ones((2, *shape), bool)
    if holes:
        valid[0, 120:131], valid[0, :, 200:207] = False, False
        valid[1, 60:75, :200] = False
    moved = np.roll(tissue, (3, -2), axis=(0, 1))
    made = (moved + 0.5 * features(shape, 1), tissue + 0.5 * features(shape, 2))
    return [FeatureImage.of(image, mask) for image, mask in zip(made, valid, strict=True)]


def jobs_over(images, template_px, window_px, step=45):
    """Jobs all over the image and beyond its edges."""
    rim = (window_px - template_px) // 2
    return np.array(
        [
            Job(0, y - rim, x - rim, 1, y, x)
            for y in range(-20, images[0].grey.shape[0] - 30, step)
            for x in range(-25, images[0].grey.shape[1] - 30, step)
        ],
        np.int32,
    )


def sizes(template_px, window_px, **more):
    radius = (window_px - template_px) // 2
    return {"template_px": template_px, "search_radius_px": radius, "min_overlap": 0.3, **more}
