"""Rendering and the pyramid: shards and levels without seams, masked pixels, grey values."""

from functools import cache

import cv2
import numpy as np
import pytest

from alignment import runs
from alignment.fields import quantise
from alignment.pyramid import halve
from alignment.render import warp
from alignment.runs import load
from alignment.stages import pyramid, render
from alignment.stages.drawn import substitutes
from alignment.stages.units import Ref
from storage.grid import Box
from storage.volume import open_array, read
from tests.relaxed_run import do_stage, relaxed_run

NZ, NY, NX = 5, 330, 300
CANVAS = (351, 317)
SPACING = 32
SMALL = {"volume": {"aligned_shard": [3, 256, 256], "aligned_chunk": [3, 32, 32]}}
FOLD = np.s_[60:72, 20:120]
"""Invalid in section 2, px at mip 1."""


def tissue(z):
    image = np.random.default_rng(z).normal(size=(NY, NX)).astype(np.float32)
    return np.clip(cv2.GaussianBlur(image, (0, 0), 3) * 300 + 90 + 15 * z, 1, 255).astype(np.uint8)


def section(z):
    image = tissue(z)
    if z == 2:
        image[120:144, 40:240] = 7
    if z == 4:
        image[:, 250:] = 0
    return image


def fields():
    random = np.random.default_rng(0)
    nodes = (CANVAS[0] // SPACING + 2, CANVAS[1] // SPACING + 2)
    rough = random.normal(scale=5, size=(NZ, 2, *nodes)).astype(np.float32)
    return np.stack([quantise(field) for field in rough])


def matrices():
    turns = np.linspace(-0.03, 0.03, NZ)
    return np.array([[[1, -t, -8 + z], [t, 1, -5 - z]] for z, t in enumerate(turns)])


def valid():
    mask = np.ones((NZ, NY // 2, NX // 2), np.uint8)
    mask[2][FOLD] = 0
    mask[4, :, 121:] = 0
    return mask


@pytest.fixture(scope="module")
def rendered(tmp_path_factory):
    """A function that renders the same five sections with given settings, each once."""

    @cache
    def of(missing=(), **settings):
        run_uri = relaxed_run(
            tmp_path_factory.mktemp("rendered"),
            [lambda z=z: section(z) for z in range(NZ)],
            (NY, NX),
            fields=fields(),
            matrices=matrices(),
            canvas=CANVAS,
            valid=valid(),
            missing=missing,
            config={**SMALL, "render": settings},
        )
        do_stage(run_uri, render)
        do_stage(run_uri, pyramid)
        return run_uri

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "LARGEST_TOP_PX", 40)  # levels enough for both stages
        yield of


def level(run_uri, mip):
    return open_array(run_uri, f"aligned/{mip}")[:]


def drawn(z, image, interpolation="lanczos"):
    where = (matrices()[z], fields()[z], SPACING, (0, 0), CANVAS)
    return warp(image, (0, 0), *where, interpolation)


def masked(z):
    mask = np.where(valid()[z] > 0, np.uint8(255), np.uint8(1))
    return drawn(z, mask.repeat(2, 0).repeat(2, 1), "nearest") == 1


def test_shards_and_levels_show_no_seam(rendered):
    run_uri = rendered()
    whole = np.stack([drawn(z, section(z)) for z in range(NZ)])
    assert open_array(run_uri, "aligned/0").shards == (3, 256, 256)
    made = render.own_levels(load(run_uri), (NZ, *CANVAS))
    assert made == 1
    for mip in range(5):
        np.testing.assert_array_equal(level(run_uri, mip), whole)
        whole = halve(whole)


def test_the_pyramid_reads_what_rendering_left_and_names_it(rendered):
    run_uri = rendered()
    phases = list(pyramid.phases(load(run_uri)))
    assert [phase.name for phase in phases] == ["mip2", "mip3", "mip4"]
    unit = phases[0].units[0]
    named = [ref for ref in phases[0].inputs(unit, run_uri=run_uri) if isinstance(ref, Ref)]
    assert {(ref.stage, ref.phase, ref.below) for ref in named} == {
        ("render", "shards", "aligned/1/")
    }
    shards = {phase.label for phase in next(render.phases(load(run_uri))).units}
    assert {ref.unit for ref in named} <= shards
    coarser = list(phases[1].inputs(phases[1].units[0], run_uri=run_uri))
    assert Ref("pyramid", "mip2", "m2_z0_y0_x0") in coarser


def test_what_is_masked_is_shown_unless_it_is_asked_away(rendered):
    np.testing.assert_array_equal(level(rendered(), 0)[2], drawn(2, section(2)))


def test_masked_pixels_become_black(rendered):
    shown = level(rendered(masked="zero"), 0)
    assert 0.02 < masked(2).mean() < 0.05
    np.testing.assert_array_equal(shown[2], np.where(masked(2), 0, drawn(2, section(2))))


@pytest.mark.parametrize("policy", ["neighbour", "previous"])
def test_masked_pixels_show_another_section_through_its_own_field(rendered, policy):
    shown = level(rendered(masked=policy), 0)
    expected = np.where(masked(2), drawn(1, section(1)), drawn(2, section(2)))
    np.testing.assert_array_equal(shown[2], expected)
    np.testing.assert_array_equal(shown[0], drawn(0, section(0)))


def test_the_first_section_has_no_previous_one_and_the_last_no_next(rendered):
    run = load(rendered(masked="neighbour", missing=(1,)))
    assert substitutes(run, 0, 0) == [2, 3]
    assert substitutes(run, 2, 2) == [3, 0, 4]
    assert substitutes(run, 4, 4) == [3, 2]
    shown = level(run.uri, 0)
    assert not shown[1].any()
    filled = masked(4) & (drawn(3, section(3)) > 0)
    np.testing.assert_array_equal(shown[4][filled], drawn(3, section(3))[filled])


def test_a_missing_section_is_bridged_by_the_nearest_with_its_masked_pixels_filled(rendered):
    run = load(rendered(masked="previous", missing=(1,), bridge_missing="copy"))
    assert substitutes(run, 1, 0) == []
    shown = level(run.uri, 0)
    np.testing.assert_array_equal(shown[1], drawn(0, section(0)))
    np.testing.assert_array_equal(
        shown[2], np.where(masked(2), drawn(0, section(0)), drawn(2, section(2)))
    )


def test_sections_get_the_grey_of_the_stack(rendered):
    """Medians of 90, 105, ... 150 become equal; black stays black, and shards agree."""
    plain = level(rendered(), 0)
    with_grey = rendered(normalise="section")
    shown = level(with_grey, 0)
    np.testing.assert_array_equal(shown == 0, plain == 0)
    tissue_only = [s[(s > 0) & ~masked(z)] for z, s in enumerate(shown)]
    medians = [np.median(t) for t in tissue_only]
    assert np.ptp(medians) <= 2, medians
    assert np.median([np.median(p[p > 0]) for p in plain]) == pytest.approx(medians[0], abs=3)
    spreads = [np.subtract(*np.percentile(t, [90, 10])) for t in tissue_only]
    assert np.ptp(spreads) <= 4, spreads
    part = read(open_array(with_grey, "aligned/0"), Box((2, 100, 100), (3, 200, 200), 0))[0]
    table = {int(a): int(b) for a, b in zip(plain[2].ravel(), shown[2].ravel(), strict=True)}
    np.testing.assert_array_equal(part, np.vectorize(table.get)(plain[2, 100:200, 100:200]))


def test_each_setting_names_what_it_reads(rendered):
    run_uri = rendered(masked="neighbour", normalise="section")
    *_, shards = render.phases(load(run_uri))
    named = set(shards.inputs(shards.units[0], run_uri=run_uri))
    stages = {(ref.stage, ref.phase) for ref in named if isinstance(ref, Ref)}
    assert {("masks", "sections"), ("render", "grey"), ("render", "common")} <= stages
    sections = {ref.unit for ref in named if isinstance(ref, Ref) and ref.stage == "ingest"}
    assert sections == {f"z{z:06d}" for z in range(5)}, "those that may fill z = 0 and 1"
