import base64
import re

import cv2
import numpy as np
import pytest

from alignment import figures
from alignment.errors import ShapeError


def decode(html):
    """Return the first picture in `html` as RGBA or grey."""
    data = base64.b64decode(re.search(r"data:image/png;base64,([^\"]+)", html)[1])
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_BGRA2RGBA)


@pytest.mark.parametrize(("low", "high"), [(0, 0.83), (-0.17, 0.24), (0, 7600), (1e-4, 2e-4)])
def test_ticks_are_round_and_inside(low, high):
    found = figures.ticks(low, high, 6)
    assert 3 <= len(found) <= 9
    assert all(low <= t <= high for t in found)
    steps = np.diff(found)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-6)


def test_a_line_breaks_where_a_value_is_unknown():
    series = figures.Series("after", [0.1, float("nan"), 0.2, 0.3], "after")
    svg = figures.line_chart("c", [1, 2, 3, 4], [series], y_label="r", y_range=(0, 1))
    path = re.search(r'class="line after" d="([^"]*)"', svg)[1]
    assert [command for command in path if command.isalpha()] == ["M", "M", "L"]
    assert svg.count("<circle") == 3


def test_values_lie_where_the_axis_says():
    series = figures.Series("after", [0.0, 1.0], "after")
    svg = figures.line_chart("c", [0, 1], [series], y_label="r", y_range=(0, 1))
    heights = [float(y) for y in re.findall(r'cy="([\d.]+)"', svg)]
    lines = {t: float(y) for y, t in re.findall(r'y="([\d.]+)" text-anchor="end">([\d.]+)<', svg)}
    assert heights == [162, 12]
    assert (lines["0"] - 4, lines["1"] - 4) == (162, 12)


def test_a_chart_without_values_is_still_a_chart():
    assert "<svg" in figures.line_chart("c", [], [], y_label="px")


def test_text_of_a_chart_is_escaped():
    series = figures.Series("<b>", [1.0], "after")
    svg = figures.line_chart('"><script>', [3], [series], y_label="<i>")
    assert not re.search("<b>|<i>|<script>", svg)


def test_a_palette_picture_has_the_palettes_colours_and_a_transparent_unknown():
    values = np.array([[0.0, 0.5, 1.0, np.nan, 7.0]])
    picture = decode(f'"{figures.palette_png(values, 0, 1, "viridis")}"')
    assert picture.shape == (1, 5, 4)
    np.testing.assert_array_equal(picture[0, :, 3], [255, 255, 255, 0, 255])
    np.testing.assert_allclose(picture[0, 0, :3], [68, 1, 84], atol=3)
    np.testing.assert_allclose(picture[0, 2, :3], [253, 231, 37], atol=3)
    np.testing.assert_array_equal(picture[0, 4], picture[0, 2])


def test_shrinking_averages_known_values_only():
    values = np.array([[1, 3, np.nan], [np.nan, np.nan, np.nan]])
    np.testing.assert_array_equal(figures.shrink(values, 2), [[2, np.nan]])
    np.testing.assert_array_equal(figures.shrink(values, 3), values.astype(np.float32))


def test_an_overlay_is_grey_where_sections_agree_and_clear_where_neither_has_data():
    image = np.tile(np.arange(1, 65, dtype=np.uint8), (64, 1))
    image[:32, :32] = 0
    same = figures.overlay(image, image)
    assert (same[..., 0] == same[..., 1]).all()
    assert (same[..., 3] == 0).sum() == 32 * 32
    shifted = figures.overlay(image, image[:, ::-1].copy())
    assert (shifted[..., 0] != shifted[..., 1]).mean() > 0.5
    assert (shifted[..., 1] == shifted[..., 2]).all()


def test_an_overlay_of_differing_shapes_is_refused():
    with pytest.raises(ShapeError, match="cut both at the same box"):
        figures.overlay(np.ones((4, 4), np.uint8), np.ones((4, 5), np.uint8))


def test_contrast_is_stretched_over_tissue_only():
    image = np.array([[0, 100], [120, 140]], np.uint8)
    shown = figures.stretch(image)
    assert shown[0, 0] == 0
    assert (shown[0, 1], shown[1, 1]) == (1, 255)
    np.testing.assert_array_equal(figures.stretch(np.zeros((2, 2), np.uint8)), np.zeros((2, 2)))


def test_the_histogram_keeps_everything_and_ends_with_the_overflow():
    values = np.array([0.1, 0.1, 5.0, 99.0, np.nan])
    svg = figures.histogram(values, 10.0, label="h")
    bars = re.findall(r"M(\d+) 60v-([\d.]+)", svg)
    assert [float(height) for _, height in bars] == [56, 28, 28]
    assert int(bars[-1][0]) == 39 * 12 + 1


def test_needles_point_the_way_the_tissue_moved():
    # A pull of +x: the tissue came from the right, so it moved to the left.
    field = np.zeros((2, 12, 12), np.float32)
    field[1] = 4
    svg = figures.field_picture(field, 4.0, "cividis", "field")
    needles = re.findall(r"M([\d.-]+) ([\d.-]+)L([\d.-]+) ([\d.-]+)L([\d.-]+) ([\d.-]+)z", svg)
    assert len(needles) == 144
    for needle in np.array(needles, float):
        (thick_x, tip_x), (thick_y, tip_y) = needle[[0, 2]], needle[[1, 3]]
        assert tip_x < thick_x
        assert abs(tip_y - thick_y) < 0.2


@pytest.mark.parametrize("shape", [(2, 0, 0), (2, 1, 1), (2, 3, 200)])
def test_every_size_of_field_can_be_drawn(shape):
    for value in (0.0, np.nan):
        field = np.full(shape, value, np.float32)
        assert decode(figures.field_picture(field, 1.0, "cividis", "f")).shape[2] == 4
        assert decode(figures.scalar_map(field[0], 0, 1, "magma", "m")).shape[2] == 4
