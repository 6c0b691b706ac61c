import numpy as np
import pytest

from alignment.neuropil import Neuropil

EXTENT = (-30, 10, 290, 330)


@pytest.fixture(scope="module")
def neuropil():
    return Neuropil(EXTENT, seed=5)


@pytest.fixture(scope="module")
def cut(neuropil):
    return neuropil.cut(neuropil.slab(2), np.arange(0, 256), np.arange(32, 288))


def test_processes_meet_at_membranes(cut):
    assert np.all(cut.process != cut.other)
    assert np.all(cut.tilt > 0)
    # Where the process changes from a pixel to the next, the membrane is near.
    change = cut.process[:, 1:] != cut.process[:, :-1]
    near = np.minimum(np.abs(cut.gap[:, 1:]), np.abs(cut.gap[:, :-1]))
    assert change.any()
    assert np.percentile(near[change], 95) < 2
    # Within a process the distance to the membrane changes by about a pixel a pixel.
    slope = np.hypot(*np.gradient(cut.gap))
    assert np.median(slope) == pytest.approx(1, abs=0.15)


def test_a_cut_does_not_depend_on_the_window(neuropil, cut):
    part = neuropil.cut(neuropil.slab(2), np.arange(64, 160), np.arange(96, 192))
    window = (slice(64, 160), slice(64, 160))
    np.testing.assert_array_equal(part.process, cut.process[window])
    inner = (slice(4, -4), slice(4, -4))  # slopes are one-sided at the border
    np.testing.assert_allclose(part.gap[inner], cut.gap[window][inner], atol=1e-3)


def test_unbending_undoes_the_bend(neuropil, cut):
    slab = neuropil.slab(2)
    pixels = np.random.default_rng(0).integers(40, 200, (200, 2))
    at = tuple(pixels.T)
    bent = np.stack([cut.y[at], cut.x[at]], axis=1)
    error = np.hypot(*(neuropil.unbend(slab, bent) - pixels - (0, 32)).T)
    assert np.median(error) < 0.05
    # Slow where the bend is strong.
    assert np.percentile(error, 95) < 0.5


def test_structure_is_smooth_in_z_and_does_not_repeat(neuropil):
    slabs = [neuropil.slab(z) for z in (2, 3, 15)]
    # The lower face of a section is the upper face of the next.
    np.testing.assert_allclose(slabs[0].position[2], slabs[1].position[0], atol=1e-4)
    np.testing.assert_allclose(slabs[0].bend[2], slabs[1].bend[0], atol=1e-4)
    step, jump = (np.hypot(*(slabs[k].position[1] - slabs[0].position[1]).T) for k in (1, 2))
    assert 0.3 < np.median(step) < 0.6 * np.median(jump)


def test_nodes_do_not_move_together_with_their_surroundings(neuropil):
    move = neuropil.slab(9).position[1] - neuropil.slab(3).position[1]
    together = neuropil.nodes.surroundings @ move
    assert np.hypot(*together.T).mean() < 0.2 * np.hypot(*move.T).mean()
