import numpy as np
import pytest

from alignment.links import PairMatches, link

GRID = (3, 4, 5)
SPACING = 32


def pair(z, d, *, covariance=None, seed=0):
    random = np.random.default_rng((seed, z, d))
    displacement = random.normal(scale=5, size=(2, 4, 5)).astype(np.float32)
    displacement[:, random.random((4, 5)) < 0.3] = np.nan
    return PairMatches(z, d, displacement, covariance)


def uncertain(seed=1):
    """Covariances of all shapes and sizes, (3, 4, 5), px^2."""
    root = np.random.default_rng(seed).normal(size=(4, 5, 2, 2))
    full = root @ root.swapaxes(2, 3) + 0.01 * np.eye(2)
    return np.stack([full[..., 0, 0], full[..., 0, 1], full[..., 1, 1]]).astype(np.float32)


@pytest.fixture
def links():
    return link([pair(1, 1, covariance=uncertain()), pair(2, 1), pair(2, 2)], GRID, SPACING, 32)


def test_a_row_is_the_difference_of_two_bilinear_values():
    displacement = np.full((2, 4, 5), np.nan, np.float32)
    displacement[:, 1, 2] = (8, -24)
    links = link([PairMatches(2, 1, displacement)], GRID, SPACING, SPACING)
    u = np.random.default_rng(0).normal(size=(*GRID, 2))
    # p = (32, 64), node (1, 2) of section 2; p + m = (40, 40), in cell (1, 1) of section 1.
    top = 0.75 * u[1, 1, 1] + 0.25 * u[1, 1, 2]
    low = 0.75 * u[1, 2, 1] + 0.25 * u[1, 2, 2]
    expected = u[2, 1, 2] - (0.75 * top + 0.25 * low) - (8, -24)
    np.testing.assert_allclose(links.residual(u.ravel()), [expected])
    np.testing.assert_array_equal(links.rows[0][1], [1 * 5 + 2])


def test_the_weight_of_an_area_does_not_depend_on_the_grid_of_matches_and_falls_with_distance():
    whole = [np.zeros((2, n, n), np.float32) for n in (5, 9)]
    grid = (3, 5, 5)
    sparse, dense = (
        link([PairMatches(1, 1, m)], grid, 32, s) for m, s in zip(whole, (32, 16), strict=True)
    )
    assert (sparse.weight == 1).all()
    assert (dense.weight == 0.25).all()
    assert (link([PairMatches(2, 2, whole[0])], grid, 32, 32).weight == 0.25).all()


def test_the_typical_covariance_means_plain_lengths():
    same = np.stack([np.full((4, 5), v, np.float32) for v in (7, 0, 7)])
    links = link([pair(1, 1, covariance=same)], GRID, SPACING, 32)
    np.testing.assert_allclose(links.precision, np.tile([1, 0, 1], (len(links.weight), 1)))
    residual = np.full((len(links.weight), 2), (3.0, 4.0))
    np.testing.assert_allclose(links.length(residual), 5)


def test_the_scale_of_the_covariances_does_not_count():
    some, more = (
        link([pair(1, 1, covariance=c)], GRID, SPACING, 32)
        for c in (uncertain(), 100 * uncertain())
    )
    np.testing.assert_allclose(more.precision, some.precision, rtol=1e-4)
    assert np.ptp(some.precision[:, 0]) > 0.1


def test_uncertain_matches_weigh_less_and_the_axes_are_kept():
    covariance = np.stack([np.full((4, 5), v, np.float32) for v in (1, 0, 1)])
    covariance[:, 0, :] = np.float32([0.1, 0, 10])[:, None]
    displacement = np.zeros((2, 4, 5), np.float32)
    precision = link([PairMatches(1, 1, displacement, covariance)], GRID, 32, 32).precision
    assert (precision[:5, 0] > 1.2).all()
    assert (precision[:5, 2] < 0.4).all()
    np.testing.assert_allclose(precision[:5, 1], 0, atol=1e-9)
    turned = covariance[[2, 1, 0]]
    swapped = link([PairMatches(1, 1, displacement, turned)], GRID, 32, 32).precision
    np.testing.assert_allclose(swapped[:, ::-1], precision)


@pytest.mark.parametrize("bad", [np.nan, 0, -1])
def test_unusable_covariances_count_as_typical(bad):
    covariance = uncertain()
    covariance[:, 2, 3] = bad
    displacement = np.zeros((2, 4, 5), np.float32)
    links = link([PairMatches(1, 1, displacement, covariance)], GRID, 32, 32)
    np.testing.assert_array_equal(links.precision[2 * 5 + 3], [1, 0, 1])


def test_information_and_forces_are_those_of_the_weighted_squares(links):
    random = np.random.default_rng(0)
    robust = random.uniform(0.2, 1, len(links.weight))
    u = random.normal(size=2 * np.prod(GRID))
    pulls = random.normal(size=links.target.shape)
    moved = links.difference @ u.reshape(-1, 2)

    def weighted(vectors):
        return (robust * links.weight * links.length(vectors) ** 2).sum()

    assert u @ (links.information(robust) @ u) == pytest.approx(weighted(moved))
    crossed = (weighted(moved + pulls) - weighted(moved) - weighted(pulls)) / 2
    assert u @ links.forces(robust, pulls) == pytest.approx(crossed)


def test_information_of_plain_matches_is_that_of_the_general_case(links):
    plain = link([pair(1, 1), pair(2, 1)], GRID, SPACING, 32)
    robust = np.ones(len(plain.weight))
    u = np.random.default_rng(0).normal(size=2 * np.prod(GRID))
    moved = plain.difference @ u.reshape(-1, 2)
    assert u @ (plain.information(robust) @ u) == pytest.approx((moved**2).sum())


def test_random_forces_have_the_information_as_covariance(links):
    random = np.random.default_rng(0)
    robust = np.full(len(links.weight), 0.7)
    forces = np.stack([links.random_forces(robust, random) for _ in range(20_000)])
    covariance = links.information(robust).toarray()
    assert np.abs(np.cov(forces.T) - covariance).max() < 0.06 * covariance.max()


def test_without_matches_there_are_no_rows():
    links = link([], GRID, SPACING, 32)
    assert links.rows == ()
    assert links.information(np.zeros(0)).nnz == 0
    assert not links.forces(np.zeros(0), links.target).any()
