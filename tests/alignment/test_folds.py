"""Folds and cracks: found and named in made-up tissue, the phantom, and a real section."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from alignment.config import MasksConfig
from alignment.defects import Defect
from alignment.masks import examine_section
from alignment.misalignment import Misalignment, MisalignmentConfig
from alignment.pyramid import downsample


def tissue(shape=(512, 512), *, seed=0):
    """Return blobs and noise of the grey of neuropil."""
    random = np.random.default_rng(seed)
    blobs = cv2.GaussianBlur(random.normal(size=shape), (0, 0), 5)
    grey = 150 + 35 * blobs / blobs.std() + random.normal(0, 8, shape)
    return grey.clip(1, 230).astype(np.uint8)


def band(shape=(512, 512), width=14):
    """Return a slightly bent band through the whole image."""
    y, x = np.mgrid[: shape[0], : shape[1]]
    return np.abs(y - 180 - 0.35 * x - 10 * np.sin(x / 90)) < width / 2


def kinds(examination):
    return {tear.kind for tear in examination.tears}


def test_a_fold_is_dark_and_shows_texture():
    image = tissue()
    where = band()
    image[where] = (150 * (image[where] / 255.0) ** 3 + 2).astype(np.uint8)
    found = examine_section(image, MasksConfig())
    assert kinds(found) == {Defect.FOLD}
    assert ((found.reasons & Defect.FOLD) > 0)[where].mean() > 0.97
    far = cv2.dilate(where.astype(np.uint8), np.ones((41, 41))) == 0
    assert found.valid[far].mean() > 0.97
    assert found.areas["FOLD"] == np.mean((found.reasons & Defect.FOLD) > 0)


@pytest.mark.parametrize("grey", [250, 5])
def test_a_crack_is_bright_or_black(grey):
    image = tissue()
    where = band()
    image[where] = grey
    found = examine_section(image, MasksConfig())
    assert kinds(found) == {Defect.CRACK}
    assert ((found.reasons & Defect.CRACK) > 0)[where].mean() > 0.97


def test_a_blacked_out_crack_is_named_beside_no_data():
    image = tissue()
    image[band(width=30)] = 0
    _, reasons, areas, *_ = examine_section(image, MasksConfig())
    assert areas["CRACK"] > 0.05
    assert reasons[275, 250] == Defect.CRACK | Defect.OUTSIDE


def test_tissue_has_neither():
    for seed in range(4):
        found = examine_section(tissue(seed=seed), MasksConfig())
        assert found.tears == []
        assert found.valid.all()


def test_bands_can_be_turned_off():
    image = tissue()
    image[band()] = 5
    assert examine_section(image, MasksConfig(band_min_length_px=0)).tears == []


def test_turning_the_section_turns_the_fold():
    image = tissue()
    image[band()] //= 4
    reasons = examine_section(image, MasksConfig()).reasons
    turned = examine_section(np.rot90(image).copy(), MasksConfig()).reasons
    assert reasons.any()
    assert np.mean(turned != np.rot90(reasons)) < 0.02


def test_gain_and_offset_of_the_camera_change_little():
    image = tissue()
    image[band()] //= 4
    plain = examine_section(image, MasksConfig()).reasons
    faint = examine_section((0.6 * image + 60).astype(np.uint8), MasksConfig()).reasons
    assert np.mean(plain != faint) < 0.01
    assert plain.any()


@pytest.mark.parametrize(("kind", "section"), [(Defect.FOLD, 0), (Defect.CRACK, 1)])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_folds_and_cracks_of_the_simulator(kind, section, seed):
    """Narrow ones: 12 px at mip 0 are 6 px here."""
    config = MisalignmentConfig(seed=seed, fold_section=0, crack_section=1, defect_px=12)
    drawn = Misalignment(config, (2, 1024, 1024))
    large = tissue((1024, 1024), seed=seed).astype(np.float32)
    picture = downsample(drawn.expose(section, large)[None])[0]
    rows = np.arange(1024)
    damaged = ~drawn.shows_tissue(section, rows, rows)[::2, ::2]
    found = examine_section(picture, MasksConfig())
    assert kinds(found) == {kind}
    assert ((found.reasons & kind) > 0)[damaged].mean() > 0.9
    near = cv2.dilate(damaged.astype(np.uint8), np.ones((25, 25))) > 0
    assert found.valid[~near].mean() > 0.99


def real(name, file):
    """Return a real section at mip 1, or skip."""
    tifffile = pytest.importorskip("tifffile")
    root = Path(os.environ.get("ALIGN_TEST_DATA", "../shared/data"))
    if not (root / name / file).exists():
        pytest.skip(f"set {name} is not in {root}; set ALIGN_TEST_DATA")
    return downsample(tifffile.imread(root / name / file)[None])[0]


def test_a_real_fold_is_found():
    image = real("damaged_DOLW7", "moving_raw.tif")
    truth = real("damaged_DOLW7", "moving_defect_mask.tif") > 127
    found = examine_section(image, MasksConfig())
    fold = (found.reasons & Defect.FOLD) > 0
    assert kinds(found) == {Defect.FOLD}
    assert fold[truth].mean() > 0.93
    assert (fold & ~truth).sum() < 0.01 * truth.size


def test_the_same_tissue_without_a_fold_is_whole():
    found = examine_section(real("damaged_DOLW7", "fixed_raw.tif"), MasksConfig())
    assert found.tears == []
    assert found.seams == []
