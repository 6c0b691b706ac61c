import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from alignment.splines import evaluate_surfaces, grid, random_coefficients, spline_basis


def test_basis_functions_sum_to_one_and_peak_at_their_coefficient():
    position = np.linspace(0, 7, 50)
    basis = spline_basis(position, 10).toarray()
    np.testing.assert_allclose(basis.sum(axis=1), 1)
    at = spline_basis(np.arange(8.0), 10).toarray()
    np.testing.assert_allclose(at[3, 3:6], (1 / 6, 2 / 3, 1 / 6), atol=1e-12)


def test_surfaces_are_the_cubic_splines_of_ndimage():
    coefficients = np.random.default_rng(0).normal(size=(2, 12, 15))
    rows, columns = np.arange(-20, 60, 3), np.linspace(-18, 90, 31)
    surfaces = evaluate_surfaces(coefficients, 10.0, (-20, -20), rows, columns)
    knots = (grid(rows, columns) + 20) / 10 + 1
    for surface, one in zip(surfaces, coefficients, strict=True):
        expected = map_coordinates(one, knots, order=3, prefilter=False)
        np.testing.assert_allclose(surface, expected, atol=1e-12)


def test_a_surface_repeats_its_edge():
    coefficients = np.random.default_rng(0).normal(size=(1, 6, 6))
    inside = evaluate_surfaces(coefficients, 10.0, (0, 0), np.array([0, 30]), np.array([0, 30]))
    beyond = evaluate_surfaces(coefficients, 10.0, (0, 0), np.array([-9, 99]), np.array([-9, 99]))
    np.testing.assert_array_equal(inside, beyond)


def test_random_surfaces_have_unit_variance_and_the_length_asked_for():
    coefficients, spacing = random_coefficients(np.random.default_rng(1), 40, 50, (900, 900))
    at = np.arange(0, 850, 25)
    surfaces = evaluate_surfaces(coefficients, spacing, (0, 0), at, at)
    assert surfaces.std() == pytest.approx(1, abs=0.03)
    correlation = [
        np.corrcoef(surfaces[:, :, :-k].ravel(), surfaces[:, :, k:].ravel())[0, 1]
        for k in (1, 2, 4)
    ]
    np.testing.assert_allclose(correlation, np.exp([-1 / 8, -1 / 2, -2]), atol=0.03)
