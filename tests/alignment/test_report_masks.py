"""The report's masks: reasons keep their colour and their place, however small the picture."""

from __future__ import annotations

import numpy as np
import pytest

from alignment.defects import Defect
from alignment.report_masks import TINTS, MaskPicture, card, columns, shown_masks, tinted


def test_every_reason_has_a_tint_of_its_own():
    assert set(TINTS) == set(Defect)
    assert len(set(TINTS.values())) == len(TINTS)


@pytest.mark.parametrize("along", [0, 1])
def test_a_thin_seam_survives_in_a_small_picture(along):
    image = np.full((2000, 2000), 100, np.uint8)
    reasons = np.zeros((1000, 1000), np.uint8)
    reasons[:, 253] = Defect.SEAM
    shown = tinted(image, reasons.T if along else reasons, 200)
    assert shown.shape == (200, 200, 3)
    coloured = (shown.max(axis=-1) != shown.min(axis=-1)).any(axis=along)
    assert np.flatnonzero(coloured).tolist() == [50]


def test_reasons_coarser_than_the_picture_cover_it():
    reasons = np.array([[Defect.FOLD, 0], [0, 0]], np.uint8)
    shown = tinted(np.full((10, 11), 100, np.uint8), reasons)
    coloured = shown.max(axis=-1) != shown.min(axis=-1)
    assert coloured[:5, :5].all()
    assert not coloured[5:].any()
    assert not coloured[:, 6:].any()


def test_a_pixel_with_two_reasons_shows_the_more_telling():
    reasons = np.full((4, 4), Defect.CRACK | Defect.OUTSIDE, np.uint8)
    red, _, blue = tinted(np.full((4, 4), 100, np.uint8), reasons)[0, 0]
    assert blue > red  # sky blue, not grey


def test_the_worst_come_first_and_few():
    areas = {z: {"FOLD": z / 1000, "OUTSIDE": 0.9} for z in range(60)}
    assert shown_masks(areas)[:3] == [59, 58, 57]
    assert len(shown_masks(areas)) == 24
    assert shown_masks({0: {"FOLD": 0.0}}) == []


def test_columns_are_the_reasons_that_occur():
    found = columns([{"FOLD": 0.0, "SEAM": 0.01}, {"NO_DATA": 0.2}])
    assert [column.label for column in found] == ["seam", "no data"]
    assert found[0].colour == "#f0e442"


def test_a_card_says_what_it_shows():
    picture = MaskPicture(7, np.full((8, 8), 9, np.uint8), np.zeros((4, 4), np.uint8))
    made = card(picture, "sec_7", {"FOLD": 0.031, "SEAM": 0.0})
    assert made.reasons == "fold 3.1 %"
    assert 'alt="Section 7 with its masks: fold 3.1 %"' in made.picture
