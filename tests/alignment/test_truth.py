import json
from dataclasses import replace

import numpy as np
import pytest

from alignment.errors import DataError, ShapeError
from alignment.fields import invert
from alignment.misalignment import Misalignment, MisalignmentConfig
from alignment.truth import (
    Truth,
    identity_alignment,
    neighbour_residuals,
    summarise,
)

SIZE = 256
STEP = 8


def still_truth(nz=3, nodes=9):
    """Sections that show the same tissue, in register."""
    return Truth(
        np.zeros((nz, 2, nodes, nodes), np.float32), np.ones((nz, nodes, nodes), bool), STEP
    )


@pytest.fixture(scope="module")
def misaligned():
    config = MisalignmentConfig(
        seed=1, rotation_deg=3, shift_px=12, elastic_px=8, elastic_length_px=150
    )
    return Misalignment(config, (7, SIZE, SIZE))


def perfect_alignment(truth):
    """The alignment whose common frame is the tissue itself."""
    coarse, _, spacing = identity_alignment(truth)
    fields = np.stack([invert(one, spacing) for one in truth.to_tissue])
    return coarse, fields, spacing


def test_displacements_are_bilinear_between_nodes():
    truth = still_truth()
    truth.to_tissue[1, :, 0, 1] = (4, -2)
    np.testing.assert_allclose(truth.locate(1, np.array([[2.0, 6.0]])), [[2 + 2.25, 6 - 1.125]])


def test_no_tissue_is_known_beside_a_defect_or_outside_the_nodes():
    truth = still_truth()
    truth.tissue[0, 2, 3] = False  # at pixel (16, 24)
    points = np.array([[16, 20.0], [16, 16], [8, 24], [9, 17], [-0.1, 0], [64, 64.1], [64, 64]])
    known = np.isfinite(truth.locate(0, points)).all(axis=1)
    # On a node beside the defect the value is known: the defect takes no part in it.
    assert known.tolist() == [False, True, True, False, False, False, True]


def test_the_exact_inverse_leaves_no_residual(misaligned):
    truth = misaligned.truth(STEP)
    aligned = neighbour_residuals(truth, *perfect_alignment(truth))
    assert min(aligned.coverage) > 0.5
    # The inverse is bilinear in its nodes, hence not quite zero.
    assert max(np.percentile(values, 99) for values in aligned.distance_px) < 0.1
    unaligned = neighbour_residuals(truth, *identity_alignment(truth))
    assert np.median(np.concatenate(unaligned.distance_px)) > 10


def test_the_inverse_affines_align_sections_that_are_only_turned_and_shifted():
    config = MisalignmentConfig(seed=4, rotation_deg=5, shift_px=12, elastic_px=0)
    truth = Misalignment(config, (4, SIZE, SIZE)).truth(STEP)
    coarse, fields, spacing = identity_alignment(truth)
    # B_z is affine: read it off three nodes, 16 apart, and invert it.
    for z, moved in enumerate(truth.to_tissue.astype(np.float64)):
        slope = np.stack([moved[:, 16, 0] - moved[:, 0, 0], moved[:, 0, 16] - moved[:, 0, 0]], 1)
        coarse[z, :, :2] = np.linalg.inv(np.eye(2) + slope / (16 * STEP))
        coarse[z, :, 2] = -coarse[z, :, :2] @ moved[:, 0, 0]
    residuals = neighbour_residuals(truth, coarse, fields, spacing)
    assert min(residuals.coverage) > 0.5
    assert max(values.max() for values in residuals.distance_px) < 1e-3


def test_the_residual_is_the_distance_in_the_tissue():
    coarse, fields, spacing = identity_alignment(still_truth())
    fields[1, 0] += 3
    fields[1, 1] += 4
    residuals = neighbour_residuals(still_truth(), coarse, fields, spacing)
    assert residuals.pairs == ((1, 0), (2, 1))
    for values in residuals.distance_px:
        np.testing.assert_allclose(values, 5)


def test_a_transform_that_all_sections_share_changes_nothing(misaligned):
    truth = misaligned.truth(STEP)
    coarse, fields, spacing = identity_alignment(truth)
    coarse[:, :, 2] += np.random.default_rng(0).normal(0, 5, (7, 2))
    before = neighbour_residuals(truth, coarse, fields, spacing, sample_px=4)
    angle = np.radians(10)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    centre = np.full(2, SIZE / 2)
    turned = coarse.copy()
    turned[:, :, :2] = coarse[:, :, :2] @ turn
    turned[:, :, 2] += centre - turn @ centre
    after = neighbour_residuals(truth, turned, fields, spacing, sample_px=4)
    for old, new in zip(before.distance_px, after.distance_px, strict=True):
        # The corners of the turned canvas see nothing, so it is not quite the same sample.
        assert np.median(new) == pytest.approx(np.median(old), rel=0.05)
    shifted = coarse.copy()
    shifted[:, :, 2] += coarse[:, :, :2] @ (16.0, -8.0)
    moved = neighbour_residuals(truth, shifted, fields, spacing, sample_px=8)
    whole = neighbour_residuals(truth, coarse, fields, spacing, sample_px=8)
    for old, new in zip(whole.distance_px, moved.distance_px, strict=True):
        # Moved by whole samples, it is a subset, bit by bit but for rounding.
        assert np.isin(np.round(new, 3), np.round(old, 3)).mean() > 0.8


def test_a_blank_section_is_bridged():
    truth = still_truth(nz=4)
    truth.tissue[1] = False
    alignment = identity_alignment(truth)
    assert neighbour_residuals(truth, *alignment).pairs == ((2, 0), (3, 2))
    assert neighbour_residuals(truth, *alignment, distance=2).pairs == ((2, 0),)


def test_unknown_fields_and_hidden_tissue_lower_the_coverage():
    truth = still_truth(nz=2)
    coarse, fields, spacing = identity_alignment(truth)
    assert neighbour_residuals(truth, coarse, fields, spacing).coverage == (1.0,)
    truth.tissue[0, :, :3] = False
    assert neighbour_residuals(truth, coarse, fields, spacing).coverage[0] == pytest.approx(6 / 9)
    fields[1] = np.nan
    residuals = neighbour_residuals(truth, coarse, fields, spacing)
    assert residuals.coverage == (0.0,)
    assert residuals.distance_px[0].size == 0


def test_the_summary_names_the_worst_pair_and_survives_json():
    truth = still_truth(nz=7)
    coarse, fields, spacing = identity_alignment(truth)
    fields[4, 0] += 2  # pairs 4-3 and 5-4
    fields[5, 0] -= 7
    summary = json.loads(json.dumps(summarise(truth, coarse, fields, spacing), allow_nan=False))
    assert summary["neighbours"]["worst_pair"]["z"] == 5
    assert summary["neighbours"]["worst_pair"]["median_px"] == pytest.approx(9)
    assert summary["neighbours"]["p99_px"] == pytest.approx(9)
    assert [pair["z"] for pair in summary["drift"]["pairs"]] == [5, 6]
    assert summary["drift"]["worst_pair"]["median_px"] == pytest.approx(7)
    assert summary["unaligned"]["p99_px"] == 0
    nothing = summarise(replace(truth, tissue=truth.tissue & False), coarse, fields, spacing)
    assert json.loads(json.dumps(nothing, allow_nan=False))["neighbours"]["median_px"] is None


def test_mismatched_arrays_are_refused():
    coarse, fields, spacing = identity_alignment(still_truth())
    with pytest.raises(ShapeError, match="3 sections"):
        neighbour_residuals(still_truth(), coarse[:2], fields, spacing)
    with pytest.raises(DataError, match="1 or more"):
        neighbour_residuals(still_truth(), coarse, fields, spacing, distance=0)
