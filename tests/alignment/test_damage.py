import numpy as np

from alignment.damage import Damage, damage_distance
from alignment.defects import Defect
from alignment.filter import Judged, Reason, leave_out

HERE = np.eye(2, 3)


def section(*places, reason=Defect.FOLD, shape=(40, 50)):
    defects = np.zeros(shape, np.uint8)
    for place in places:
        defects[place] |= np.uint8(reason)
    return defects


def test_distances_are_px_of_mip_0_in_the_common_frame():
    # At mip 1 pixel (10, 20) covers (20, 40) and (21, 41) of mip 0; the section lies 8 px lower.
    damage = Damage.of(section((10, 20)), mip=1, matrix=np.array([[1.0, 0, 8], [0, 1, 0]]))
    points = np.array([[12.0, 40.0], [12.0, 50.0], [0.0, 40.0], [-30.0, 40.0], [12.0, 200.0]])
    np.testing.assert_allclose(damage.at(points), [0, 10, 12, np.inf, np.inf])


def test_the_end_of_the_section_and_tile_seams_are_no_damage():
    for harmless in (Defect.OUTSIDE, Defect.SEAM, Defect.OUTSIDE | Defect.SEAM):
        damage = Damage.of(section(np.s_[:10], reason=harmless), mip=0, matrix=HERE)
        assert np.isinf(damage.at(np.array([[5.0, 5.0]]))).all()
    both = Damage.of(section(np.s_[:10], reason=Defect.SEAM | Defect.CRACK), mip=0, matrix=HERE)
    assert both.at(np.array([[5.0, 5.0], [12.0, 5.0]])).tolist() == [0, 3]


def test_either_end_of_a_match_counts():
    torn = Damage.of(section(np.s_[:, 24]), mip=0, matrix=HERE)
    whole = Damage.of(section(), mip=0, matrix=HERE)
    matches = np.zeros((2, 5, 6), np.float32)
    matches[1] = 4.0
    matches[:, 0, 0] = np.nan
    here = damage_distance(matches, spacing_px=8, moving=torn, fixed=whole)
    there = damage_distance(matches, spacing_px=8, moving=whole, fixed=torn)
    assert here[1].tolist() == [24, 16, 8, 0, 8, 16]  # columns 0, 8 ... 40 from column 24
    assert there[1].tolist() == [20, 12, 4, 4, 12, 20]  # the same 4 px further on
    assert np.isinf([here[0, 0], there[0, 0]]).all()


def test_what_is_left_out_is_named():
    nan = np.full((14, 1, 3), np.nan, np.float32)
    judged = Judged(nan, np.array([[0, Reason.SCORE, 0]], np.uint16), nan[0])
    named = leave_out(judged, np.array([[True, False, False]]))
    assert named.reasons.tolist() == [[Reason.DAMAGE, Reason.SCORE, 0]]
