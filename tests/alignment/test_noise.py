import numpy as np
import pytest

from alignment.noise import MARGIN_PX, Noise, Stream


@pytest.fixture
def noise():
    return Noise((-30, 10, 290, 330), seed=5)


def test_surfaces_have_unit_variance_and_change_with_time(noise):
    early, next_one, late = noise.surface(Stream.CLOUD, (0, 1, 9), 8, 0.7)[:, 0]
    at = np.arange(0, 280)
    assert noise.evaluate(early, 8, at, at).std() == pytest.approx(1, abs=0.1)
    kept = np.corrcoef(early.ravel(), next_one.ravel())[0, 1]
    assert kept == pytest.approx(np.exp(-1 / (4 * 0.7**2)), abs=0.1)
    assert abs(np.corrcoef(early.ravel(), late.ravel())[0, 1]) < 0.1


def test_a_time_is_the_same_whichever_others_are_asked_for(noise):
    alone = noise.smooth(Stream.SIZE, (2.5,), (50,), 2.0)[0]
    among = noise.smooth(Stream.SIZE, (-3, 2.5, 4), (50,), 2.0)[1]
    np.testing.assert_allclose(alone, among, atol=1e-6)


def test_streams_and_seeds_are_independent(noise):
    shape = (1000,)
    size = noise.smooth(Stream.SIZE, (0,), shape, 1.0)[0]
    life = noise.smooth(Stream.LIFE, (0,), shape, 1.0)[0]
    other = Noise((-30, 10, 290, 330), seed=6).smooth(Stream.SIZE, (0,), shape, 1.0)[0]
    assert abs(np.corrcoef(size, life)[0, 1]) < 0.12
    assert abs(np.corrcoef(size, other)[0, 1]) < 0.12


def test_surfaces_reach_beyond_the_tissue_on_all_sides(noise):
    surface = noise.surface(Stream.STAIN, (0,), 20, 1.0)[0, 0]
    inner = np.array([-30 - MARGIN_PX + 1, 290 + MARGIN_PX - 1])
    far = inner + np.array([-40, 40])
    columns = np.array([50])
    inside, beyond = (noise.evaluate(surface, 20, rows, columns) for rows in (inner, far))
    assert not np.allclose(inside, beyond)  # the edge is repeated from there on, and not before
    np.testing.assert_array_equal(beyond, noise.evaluate(surface, 20, 2 * far - inner, columns))
