import numpy as np
import pytest

from alignment.fields import affine_field, invert_affine
from alignment.wander import QUANTITIES, low_pass, measure_wander

GRID, SPACING = (9, 9), 32
CORNER_PX = np.hypot(128, 128)


def pull_of(dy, dx, turn=0.0, growth=0.0):
    """Field of a section whose tissue was moved, turned from y towards x, and grown."""
    centre = np.array([128.0, 128.0])
    linear = (1 + growth) * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    moved = np.column_stack([linear, centre + np.array([dy, dx]) - linear @ centre])
    return affine_field(invert_affine(moved), GRID, SPACING)


def test_what_moves_a_whole_section_is_told_apart():
    cases = [(2, -3, 0, 0), (0, 0, 0.004, 0), (0, 0, 0, -0.01), (1, 0.5, -0.003, 0.002)]
    wander = measure_wander((pull_of(*case) for case in cases), SPACING)
    expected = np.array([(y, x, t * CORNER_PX, g * CORNER_PX) for y, x, t, g in cases])
    np.testing.assert_allclose(wander.moved, expected, atol=0.03)


def test_local_deformation_is_no_wander():
    nodes = np.indices(GRID) - 4.0
    bend = np.stack([nodes[0] ** 2 - (nodes[0] ** 2).mean(), nodes[0] * nodes[1]])
    moved = measure_wander([bend.astype(np.float32)], SPACING).moved
    np.testing.assert_allclose(moved, 0, atol=1e-5)


def test_smoothing_keeps_slow_drift_and_drops_what_alternates():
    z = np.arange(500)
    slow = np.sin(2 * np.pi * z / 250)
    jumping = np.where(z % 2, 3.0, -3.0)
    rows = low_pass(np.stack([slow + jumping, jumping], axis=1))
    inner = slice(30, -30)
    np.testing.assert_allclose(rows[inner, 0], slow[inner], atol=0.06)
    np.testing.assert_allclose(rows[inner, 1], 0, atol=0.01)
    np.testing.assert_allclose(low_pass(np.full((7, 2), 4.0)), 4.0)


def test_sections_without_a_field_do_not_count():
    fields = [pull_of(z / 10, 0) if z % 7 else None for z in range(60)]
    wander = measure_wander(fields, SPACING)
    gone = np.arange(60) % 7 == 0
    np.testing.assert_array_equal(np.isnan(wander.slow[:, 0]), gone)
    assert wander.peak_to_peak_px["dy"] == pytest.approx(4.5, abs=1.2)
    assert wander.peak_to_peak_px["dx"] == pytest.approx(0, abs=1e-6)


def test_a_stack_without_any_field_has_no_wander():
    wander = measure_wander([None, None], SPACING)
    assert list(wander.peak_to_peak_px) == list(QUANTITIES)
    assert np.isnan(list(wander.peak_to_peak_px.values())).all()
