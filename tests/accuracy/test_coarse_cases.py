"""The coarse stage finds, or refuses, sections that are laid badly on purpose."""

from __future__ import annotations

import numpy as np
import pytest
import tifffile

from alignment.affines import compose_affines
from alignment.phantom import Phantom, PhantomConfig
from tests.accuracy.coarse_cases import CASES, between, make_pair, register
from tests.accuracy.sets import DATA

SHOWN = [
    case
    for case in CASES
    if case.overlap in (None, 0.6) and not (case.turn_deg and (case.is_mirrored or case.overlap))
]
REFUSED = [case for case in CASES if case.overlap == 0]
ALLOWED_PX = 3.0


def ids(cases):
    return [case.name for case in cases]


@pytest.fixture(scope="module")
def phantom():
    still = {"rotation_deg": 0, "shift_px": 0, "stretch": 0, "elastic_px": 0}
    drawn = Phantom(PhantomConfig(seed=2, sections=2, height=512, width=512, **still))
    return drawn.section(0), drawn.section(1)


@pytest.fixture(scope="module")
def vnc():
    path = DATA / "vnc_stack1" / "raw.tif"
    if not path.exists():
        pytest.skip(f"set vnc_stack1 is not in {DATA}; set ALIGN_TEST_DATA")
    return tuple(tifffile.imread(path, key=[5, 6]))


@pytest.fixture(params=["phantom", "vnc"])
def neighbours(request):
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("case", SHOWN, ids=ids(SHOWN))
def test_neighbours_are_found_and_a_mirror_is_told(neighbours, case):
    own = between(*neighbours, case)
    pair = make_pair(*neighbours, case)
    outcome = register(pair._replace(truth=compose_affines(pair.truth, own)))
    assert outcome.error_px < ALLOWED_PX
    assert outcome.is_mirrored == case.is_mirrored
    assert ("inverted" in outcome.found.method) == case.is_inverted
    assert ("mirrored" in outcome.found.method) == case.is_mirrored
    assert (np.linalg.det(outcome.found.matrix[:, :2]) < 0) == case.is_mirrored


@pytest.mark.parametrize("case", REFUSED, ids=ids(REFUSED))
def test_sections_without_overlap_are_refused(neighbours, case):
    assert register(make_pair(*neighbours, case)).found is None


@pytest.mark.parametrize("case", CASES, ids=ids(CASES))
def test_the_truth_of_a_case_is_where_its_pixels_are(phantom, case):
    """Grey values must agree at the places that the truth pairs, or the table means nothing."""
    pair = make_pair(phantom[0], phantom[0], case)
    y, x = np.mgrid[20 : pair.fixed.shape[0] - 20 : 7, 20 : pair.fixed.shape[1] - 20 : 7]
    start = np.stack([y.ravel(), x.ravel()], axis=1).astype(float)
    there = start @ pair.truth[:, :2].T + pair.truth[:, 2]
    inside = ((there >= 0) & (there <= np.array(pair.moving.shape) - 1)).all(axis=1)
    if case.overlap == 0:
        assert not inside.any()
        return
    a = pair.fixed[tuple(start[inside].astype(int).T)].astype(float)
    b = pair.moving[tuple(np.rint(there[inside]).astype(int).T)].astype(float)
    shown = b > 0
    r = np.corrcoef(a[shown], b[shown])[0, 1]
    assert (-r if case.is_inverted else r) > 0.8
