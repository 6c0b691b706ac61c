import numpy as np
import pytest

from alignment.config import RelaxConfig
from alignment.defects import Defect
from alignment.errors import ShapeError
from alignment.relax import PairMatches, relax_stack
from alignment.tearing import EMPTY, TORN, torn_cells

SIDE, SPACING = 257, 32
STILL = np.tile(np.eye(2, 3), (2, 1, 1))


def defects(**areas):
    found = np.zeros((2, 129, 129), np.uint8)  # mip 1
    for name, (z, rows, columns) in areas.items():
        found[z, slice(*rows), slice(*columns)] |= np.uint8(Defect[name])
    return found


def mapped(found, matrices=STILL):
    return np.stack(
        [
            torn_cells(one, matrix, (SIDE, SIDE), SPACING, mip=1)
            for one, matrix in zip(found, matrices, strict=True)
        ]
    )


def test_cells_that_a_crack_crosses_are_torn_and_no_others():
    factors = mapped(defects(CRACK=(1, (0, 129), (52, 54))))  # px 104 ... 107 of mip 0
    assert factors.shape == (2, 8, 8)
    assert factors.dtype == np.float32
    assert (factors[0] == 1).all()
    assert (factors[1, :, 3] == np.float32(TORN)).all()
    assert (np.delete(factors[1], 3, axis=1) == 1).all()


def test_a_seam_tears_nothing_and_a_cell_is_empty_only_without_any_tissue():
    factors = mapped(defects(SEAM=(0, (0, 129), (52, 54)), NO_DATA=(1, (0, 17), (0, 26))))
    assert (factors[0] == 1).all()
    assert factors[1, 0, 0] == np.float32(EMPTY)
    assert factors[1, 0, 1] == 1
    assert np.count_nonzero(factors != 1) == 1


def test_beside_the_section_there_is_nothing_to_hold_together():
    matrices = STILL.copy()
    matrices[1, 0, 2] = -64  # the section begins two cells further down
    factors = mapped(defects(), matrices)
    assert (factors[1, :2] == np.float32(EMPTY)).all()
    assert (factors[1, 2:] == 1).all()


def test_the_sides_of_a_crack_part_without_shearing_the_tissue_beyond_50_px():
    # The right side has slid down by 12 px; matches on the crack are missing.
    shift = np.zeros((2, 9, 9), np.float32)
    shift[0, :, 4:] = 12
    torn = mapped(defects(CRACK=(1, (0, 129), (52, 54))))
    config = RelaxConfig(stiffness=3.0)
    pairs = [PairMatches(1, 1, shift)]
    whole, opened = (
        relax_stack(pairs, 2, (SIDE, SIDE), SPACING, config, stiffness_map=cells)
        for cells in (None, torn)
    )
    beyond = [0, 1, 6, 7]  # cells whose columns lie 50 px and more from the crack

    def shear(result):
        apart = result.push[1, 0] - result.push[0, 0]
        return np.abs(np.diff(apart, axis=1)[:, beyond]).max() / SPACING

    assert shear(opened) < 0.005
    assert shear(opened) < shear(whole) / 3
    assert opened.flipped_repaired == 0


def test_a_tall_section_is_looked_at_in_strips():
    found = np.zeros((80, 20), np.uint8)
    found[70, :] = Defect.FOLD
    factors = torn_cells(found, STILL[0], (80, 20), 1, mip=0)
    assert factors.shape == (79, 19)
    assert np.flatnonzero((factors < 1).all(axis=1)).tolist() in ([69], [70], [69, 70])
    assert factors[:60].min() == 1


def test_other_shapes_are_refused():
    with pytest.raises(ShapeError, match=r"got \(2, 129, 129\) and \(2, 3\)"):
        torn_cells(defects(), STILL[0], (SIDE, SIDE), SPACING, mip=1)
