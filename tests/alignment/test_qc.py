import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage as ndi

from alignment import qc
from alignment.errors import ConfigError, ShapeError


def tissue(shape=(128, 192), seed=0):
    smooth = ndi.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2)
    return np.clip(128 + smooth / smooth.std() * 30, 1, 255).astype(np.uint8)


def test_an_image_correlates_perfectly_with_itself_and_with_any_gain():
    image = tissue()
    np.testing.assert_array_equal(qc.chunk_correlation(image, image, None, 32), np.ones((4, 6)))
    dimmer = (image // 2).astype(np.uint8)
    assert qc.chunk_correlation(image, dimmer, None, 32).min() > 0.99


def test_a_negative_correlates_at_minus_one():
    image = tissue()
    negative = (256 - image.astype(int)).astype(np.uint8)
    np.testing.assert_allclose(qc.chunk_correlation(image, negative, None, 64), -1, atol=1e-6)


def test_agrees_with_numpy_chunk_by_chunk():
    a, b = tissue(seed=1), tissue(seed=2)
    found = qc.chunk_correlation(a, b, None, 50)
    assert found.shape == (2, 3)
    for i, j in np.ndindex(2, 3):
        part = np.s_[i * 50 : i * 50 + 50, j * 50 : j * 50 + 50]
        expected = np.corrcoef(a[part].ravel(), b[part].ravel())[0, 1]
        assert found[i, j] == pytest.approx(expected, abs=1e-6)


def test_a_shift_beyond_the_texture_lowers_it():
    image = tissue((128, 256))
    still, near, far = (
        qc.chunk_correlation(image[:, 20:-20], image[:, 20 + d : 236 + d], None, 64).mean()
        for d in (0, 2, 20)
    )
    assert still == 1
    assert 0.5 < near < 0.9
    assert abs(far) < 0.2


def test_a_chunk_with_missing_or_invalid_pixels_is_nan_and_the_others_are_not_touched():
    a, b = tissue(), tissue(seed=3)
    a[:20, :20] = 0
    valid = np.ones(a.shape, np.uint8)
    valid[100, 100] = 0
    found = qc.chunk_correlation(a, b, valid, 32)
    whole = qc.chunk_correlation(tissue(), b, None, 32)
    unknown = np.zeros(found.shape, bool)
    unknown[0, 0] = unknown[3, 3] = True
    np.testing.assert_array_equal(np.isnan(found), unknown)
    np.testing.assert_array_equal(found[~unknown], whole[~unknown])


def test_a_missing_area_counts_from_either_image():
    a, b = tissue(), tissue()
    b[:20, :20] = 0
    assert np.isnan(qc.chunk_correlation(a, b, None, 32)[0, 0])


def test_dark_specks_are_tissue_and_zero_areas_are_not():
    image = tissue()
    image[40:56, 40:56] = 0
    image[60:64, ::3] = 0
    assert qc.missing_pixels(image).sum() == 256
    assert np.isnan(qc.chunk_correlation(image, tissue(), None, 32)[1, 1])
    image[40, 40] = 1
    assert not qc.missing_pixels(image).any()
    assert not np.isnan(qc.chunk_correlation(image, tissue(), None, 32)).any()


def test_zero_areas_that_touch_at_corners_are_one():
    image = np.full((40, 40), 9, np.uint8)
    image[:12, :12] = image[12:24, 12:24] = 0
    assert qc.missing_pixels(image).sum() == 288


def test_a_constant_chunk_has_no_correlation():
    flat = tissue()
    flat[:32, :32] = 77
    found = qc.chunk_correlation(flat, tissue(), None, 32)
    assert np.isnan(found[0, 0])
    assert np.isfinite(found).sum() == found.size - 1


def test_sections_smaller_than_a_chunk_give_an_empty_map():
    small = tissue((20, 20))
    found = qc.chunk_correlation(small, small, None, 64)
    assert found.shape == (0, 0)
    assert qc.summarise(found).count == 0


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 40), st.integers(2, 70), st.integers(2, 90), st.integers(0, 5))
def test_the_map_has_one_element_per_whole_chunk_in_range(chunk, ny, nx, seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 256, (2, ny, nx)).astype(np.uint8)
    found = qc.chunk_correlation(a, b, None, chunk)
    assert found.shape == (ny // chunk, nx // chunk)
    assert found.dtype == np.float32
    assert (np.abs(found[np.isfinite(found)]) <= 1).all()


def test_differing_shapes_and_masks_are_refused_with_a_way_out():
    with pytest.raises(ShapeError, match="crop or pad both to the common frame"):
        qc.chunk_correlation(tissue((64, 64)), tissue((64, 65)), None, 32)
    with pytest.raises(ShapeError, match=r"valid \(3, 3\) must have"):
        qc.chunk_correlation(tissue(), tissue(), np.ones((3, 3)), 32)
    with pytest.raises(ConfigError, match=r"qc\.chunk_px=1"):
        qc.chunk_correlation(tissue(), tissue(), None, 1)


def test_nan_chunks_change_no_summary():
    values = np.linspace(-1, 1, 201)
    summary = qc.summarise(values)
    with_gaps = qc.summarise(np.concatenate([values, np.full(50, np.nan)]))
    assert summary == with_gaps
    assert summary.count == 201
    assert summary.mean == pytest.approx(0, abs=1e-12)
    assert (summary.p1, summary.p5) == pytest.approx((-0.98, -0.9))
    assert (summary.p50, summary.p95) == pytest.approx((0, 0.9), abs=1e-12)


def test_residuals_have_known_percentiles():
    summary = qc.residual_summary(np.append(np.arange(101, dtype=np.float32), np.nan))
    assert (summary.mean, summary.p50, summary.p95, summary.p99) == (50, 50, 95, 99)
    assert summary.count == 101
    assert qc.residual_summary(np.full((3, 3), np.nan)).count == 0


def test_a_stack_is_scored_with_the_nearest_good_section_and_read_once():
    sections = np.stack([tissue((64, 64), seed=z // 2) for z in range(6)])
    sections[3] = 0
    asked = []

    def read(z):
        asked.append(z)
        return sections[z]

    scores = qc.score_stack(read, 6, 32, missing=(3,))
    assert [(s.z, s.fixed_z) for s in scores] == [(1, 0), (2, 1), (4, 2), (5, 4)]
    assert asked == [0, 1, 2, 4, 5]
    # 0 and 1 are the same tissue, 1 and 2 are not.
    assert scores[0].summary.mean == 1
    assert abs(scores[1].summary.mean) < 0.3
    assert scores[3].summary == scores[0].summary


def test_a_blank_section_that_nobody_declared_gives_no_numbers_and_no_error():
    sections = [tissue((64, 64)), np.zeros((64, 64), np.uint8)]
    (score,) = qc.score_stack(sections.__getitem__, 2, 32)
    assert score.summary.count == 0
    assert np.isnan(score.chunks).all()


def test_masked_tissue_is_left_out_of_a_stack():
    valid = np.ones((64, 64), bool)
    valid[:, :32] = False
    (score,) = qc.score_stack(lambda z: tissue((64, 64)), 2, 32, read_valid=lambda z: valid)
    assert score.summary.count == 2
    np.testing.assert_array_equal(np.isnan(score.chunks), [[True, False]] * 2)


def test_sections_of_differing_shape_name_their_pair():
    sizes = {0: (64, 64), 1: (64, 64), 2: (64, 70)}
    with pytest.raises(ShapeError, match="sections 1 and 2 must have one shape"):
        qc.score_stack(lambda z: tissue(sizes[z]), 3, 32)


def test_common_area_drops_what_either_stack_lacks():
    first = [tissue((64, 96), seed=z) for z in range(2)]
    second = [image.copy() for image in first]
    first[0][:32, :32] = 0
    second[1][32:, 64:] = 0
    ours, theirs = (qc.score_stack(images.__getitem__, 2, 32) for images in (first, second))
    (a,), (b,) = qc.on_common_area(ours, theirs)
    assert (ours[0].summary.count, theirs[0].summary.count) == (5, 5)
    assert a.summary == b.summary
    assert a.summary.count == 4


def test_stacks_of_other_pairs_cannot_be_compared():
    images = [tissue((64, 64), seed=z) for z in range(4)]
    all_, fewer = (
        qc.score_stack(images.__getitem__, 4, 32, missing=missing) for missing in ((), (1,))
    )
    with pytest.raises(ShapeError, match="give every stack the same `missing`"):
        qc.on_common_area(all_, fewer)
    with pytest.raises(ShapeError, match=r"got \[3, 2\] of them"):
        qc.on_common_area(all_, all_[:2])


def affine_field(matrix, ny=5, nx=7, spacing=16.0):
    """Return the pull field of aligned a -> source (I + matrix) a."""
    at = np.stack(np.mgrid[:ny, :nx]) * spacing
    return np.einsum("ij,jyx->iyx", matrix, at).astype(np.float32)


def test_a_shift_and_a_zero_field_distort_nothing():
    found = qc.distortion(np.full((2, 4, 5), 3.5, np.float32), 16)
    assert (found.area_p1, found.area_p99, found.strain_p99) == (0, 0, 0)
    assert (found.flipped_cells, found.cells) == (0, 12)


def test_a_rotation_distorts_nothing():
    c, s = np.cos(0.3), np.sin(0.3)
    found = qc.distortion(affine_field(np.array([[c - 1, -s], [s, c - 1]])), 16)
    assert found.area_p50 == pytest.approx(0, abs=1e-5)
    assert found.strain_p99 == pytest.approx(0, abs=1e-5)


def test_area_and_strain_of_a_stretch():
    # The aligned image shows half of the source per axis y: tissue is twice as tall.
    found = qc.distortion(affine_field(np.diag([-0.5, 0.0])), 16)
    assert found.area_p50 == pytest.approx(1, abs=1e-5)
    assert found.strain_p99 == pytest.approx(np.log(2), abs=1e-5)
    # And squeezed by the same factor in the other direction, its area is as it was.
    shear = qc.distortion(affine_field(np.diag([-0.5, 1.0])), 16)
    assert shear.area_p50 == pytest.approx(0, abs=1e-5)
    assert shear.strain_p99 == pytest.approx(np.log(2), abs=1e-5)


def test_strain_agrees_with_singular_values():
    field = np.random.default_rng(4).normal(0, 2, (2, 2, 2)).astype(np.float32)
    corners = field.astype(np.float64)
    down = (corners[:, 1] - corners[:, 0]).mean(axis=1) / 16
    right = (corners[:, :, 1] - corners[:, :, 0]).mean(axis=1) / 16
    jacobian = np.eye(2) + np.stack([down, right], axis=1)
    found = qc.distortion(field, 16)
    stretches = np.linalg.svd(jacobian, compute_uv=False)
    assert found.strain_p50 == pytest.approx(np.abs(np.log(stretches)).max())
    assert found.area_p50 == pytest.approx(1 / np.linalg.det(jacobian) - 1)


def test_a_fold_is_counted_and_unknown_nodes_are_not():
    field = np.zeros((2, 6, 6), np.float32)
    field[1, 2:4, 3] = 20  # past its neighbour 16 px further
    assert qc.distortion(field, 16).flipped_cells > 0
    field[:, 5] = np.nan
    assert qc.distortion(field, 16).cells == 20
    assert qc.distortion(np.full((2, 3, 3), np.nan, np.float32), 16).cells == 0


def test_worst_places_are_distinct_and_ordered():
    first = np.ones((8, 8), np.float32)
    first[1, 1], first[1, 2], first[6, 6] = -0.5, -0.4, 0.1
    second = np.full((8, 8), np.nan, np.float32)
    second[1, 1], second[0, 7] = -0.3, 0.2
    found = qc.worst_places(
        [(4, first), (5, second)], 3, spacing_px=64, first_px=31.5, separation_px=128, lowest=True
    )
    # (4; 1, 2) and (5; 1, 1) would show what (4; 1, 1) shows.
    assert found == (
        qc.Place(4, 95.5, 95.5, -0.5),
        qc.Place(4, 415.5, 415.5, pytest.approx(0.1)),
        qc.Place(5, 31.5, 479.5, pytest.approx(0.2)),
    )


def test_one_bad_spot_does_not_crowd_out_the_next():
    values = np.ones((8, 8), np.float32)
    values[2:4, 2:4] = [[-0.9, -0.8], [-0.7, -0.6]]
    values[7, 7] = 0
    found = qc.worst_places([(1, values)], 2, spacing_px=64, separation_px=128, lowest=True)
    assert [(place.y, place.x) for place in found] == [(128, 128), (448, 448)]


def test_worst_places_far_apart_in_z_are_two():
    low = np.full((2, 2), -0.5, np.float32)
    found = qc.worst_places([(1, low), (3, low)], 10, spacing_px=64, separation_px=128, lowest=True)
    assert [place.z for place in found] == [1, 3]


def test_largest_residuals_are_found_at_their_nodes():
    residual = np.zeros((5, 5), np.float32)
    residual[3, 1], residual[0, 4] = 9, 7
    found = qc.worst_places([(2, residual)], 2, spacing_px=32, separation_px=64, lowest=False)
    assert found == (qc.Place(2, 96, 32, 9), qc.Place(2, 0, 128, 7))


def test_nothing_measured_gives_no_place():
    unknown = np.full((3, 3), np.nan, np.float32)
    maps = [(1, unknown), (2, np.zeros((0, 0), np.float32))]
    assert qc.worst_places(maps, 5, spacing_px=1, separation_px=2, lowest=True) == ()


def test_inputs_are_not_modified():
    a, b = tissue(), tissue(seed=1)
    a[:30, :30] = 0
    values = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    copies = a.copy(), b.copy(), values.copy()
    qc.chunk_correlation(a, b, np.ones(a.shape), 32)
    qc.worst_places([(0, values)], 2, spacing_px=1, separation_px=2, lowest=False)
    for array, copy in zip((a, b, values), copies, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_a_peers_own_result_scores_as_it_was_measured():
    """AlignTK's reference alignment of its example, 15 pairs: .536 (p5 .306) at 64 px."""
    folder = Path(os.environ.get("ALIGN_TEST_DATA", "../shared/data"))
    path = folder / "aligntk_z00-07" / "reference_aligned_raw.tif"
    if not path.exists():
        pytest.skip(f"the set aligntk_z00-07 is not in {folder}; set ALIGN_TEST_DATA")
    stack = tifffile.imread(path)
    scores = qc.score_stack(stack.__getitem__, len(stack), 64)
    overall = qc.summarise(np.stack([score.chunks for score in scores]))
    assert overall.mean == pytest.approx(0.536, abs=0.03)
    assert overall.p5 == pytest.approx(0.306, abs=0.03)
    assert all(0.5 < score.summary.mean < 0.57 for score in scores)


def test_smoothing_scores_a_sharp_and_a_blurred_rendering_alike():
    rng = np.random.default_rng(4)
    structure = ndi.gaussian_filter(rng.normal(0, 160, (256, 256)), 4) * 3
    a, b = (structure + rng.normal(0, 25, structure.shape) + 128 for _ in range(2))
    sharp = [np.clip(image, 1, 255).astype(np.uint8) for image in (a, b)]
    blurred = [ndi.gaussian_filter(image, 0.8) for image in sharp]
    plain = [qc.chunk_correlation(*pair, None, 64).mean() for pair in (sharp, blurred)]
    smooth = [
        qc.chunk_correlation(*pair, None, 64, smoothing_px=1.5).mean() for pair in (sharp, blurred)
    ]
    assert plain[1] - plain[0] > 0.05
    assert abs(smooth[1] - smooth[0]) < 0.02


def test_smoothing_does_not_bleed_missing_pixels_into_their_neighbours():
    a, b = tissue((128, 128), seed=1), tissue((128, 128), seed=2)
    holed = a.copy()
    holed[:, :32] = 0
    whole = qc.chunk_correlation(a, b, None, 32, smoothing_px=1.5)
    found = qc.chunk_correlation(holed, b, None, 32, smoothing_px=1.5)
    assert np.isnan(found[:, 0]).all()
    np.testing.assert_allclose(found[:, 1:], whole[:, 1:], atol=0.05)
