"""Faults of other systems that matching must not share, each as a claim."""

import numpy as np
import pytest
from scipy import ndimage as ndi

from alignment.commands.convert import as_rows, write_volume
from alignment.config import FilterConfig, MatchConfig, MatchLevel, parse_config
from alignment.errors import ConfigError, DataError, StageFailed
from alignment.filter import reject_outliers
from alignment.holes import untied_nodes
from alignment.match import CHANNELS, Patch, grid_shape, grid_spacing_px, match_block
from alignment.phantom import Phantom, PhantomConfig
from alignment.runs import DEFAULT_RESOLUTION_NM, prepare
from alignment.stages import ORDER, inputs, run_stage
from storage.commit import records
from storage.store import read_json
from storage.volume import open_array
from tests.pipeline.conftest import CONFIG as LAYOUT
from tests.pipeline.conftest import cluster  # noqa: F401

SHAPE = (288, 320)
CONFIG = MatchConfig(
    levels=(MatchLevel(mip=0, template_px=64, search_radius_px=12, node_spacing_px=16),), refine=()
)
NODES = grid_shape(SHAPE, CONFIG)


def texture(seed=0, shape=SHAPE):
    image = ndi.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.5)
    return (image / image.std()).astype(np.float32)


def match(fixed, moving, fixed_valid=None, moving_valid=None, box=((0, 0), NODES)):
    patches = [
        {0: Patch(image, np.ones(SHAPE, bool) if valid is None else valid, (0, 0), 0)}
        for image, valid in ((fixed, fixed_valid), (moving, moving_valid))
    ]
    return match_block(*patches, box, NODES, CONFIG)


def trusted(matches):
    spacing = grid_spacing_px(CONFIG)
    return np.isfinite(reject_outliers(matches, spacing_px=spacing, config=FilterConfig())[0][0])


# --------------------------------------------------------------------------- of one pair


def test_all_statistics_of_a_match_are_the_same_whatever_is_matched_with_it():
    """SOFIMA's second peaks depended on the other patches of the batch."""
    moving = texture()
    fixed = np.roll(moving, (4, -7), (0, 1)) + 0.8 * texture(1)
    fixed[100:140] = texture(2)[100:140]  # here the peaks are ambiguous
    whole = match(fixed, moving)
    for i, j in ((3, 4), (7, 9), (8, 2), (NODES[0] - 2, NODES[1] - 2)):
        for rows, columns in ((1, 1), (2, 5), (NODES[0] - i, 1)):
            end = min(i + rows, NODES[0]), min(j + columns, NODES[1])
            part = match(fixed, moving, box=((i, j), end))
            np.testing.assert_array_equal(part, whole[:, i : end[0], j : end[1]])


def test_what_is_masked_has_no_say_in_where_a_match_lies():
    """A bright band that moved the other way is louder than the tissue; masked, it is not heard."""
    moving, shift = texture(), (5, 3)
    fixed = np.roll(moving, shift, (0, 1))
    moving_valid, fixed_valid = np.ones(SHAPE, bool), np.ones(SHAPE, bool)
    band = 8 * texture(3, (40, 40))
    moving[120:160, 140:180] = band
    fixed[112:152, 150:190] = band
    moving_valid[120:160, 140:180] = False
    fixed_valid[112:152, 150:190] = False
    beside = np.s_[5:12, 6:14]  # nodes whose templates hold some of it
    honoured = match(fixed, moving, fixed_valid, moving_valid)[:2, *beside]
    ignored = match(fixed, moving)[:2, *beside]
    error = [np.hypot(*(found - np.reshape(shift, (2, 1, 1)))) for found in (honoured, ignored)]
    assert np.nanmax(error[0]) < 0.5
    assert np.nanmax(error[1]) > 5
    assert np.isfinite(honoured[0]).mean() > 0.8


def test_sections_that_show_no_common_tissue_have_no_match_and_no_warning():
    left, right = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    left[:, :120], right[:, 200:] = True, True
    found = match(texture(), texture(), left, right)
    assert np.isnan(found).all()
    assert not trusted(found).any()


@pytest.mark.parametrize("masked", ["fixed", "moving", "both"])
def test_a_section_that_is_masked_all_over_has_no_match_and_is_tied_to_nothing(masked):
    none = np.zeros(SHAPE, bool)
    fixed_valid = none if masked in ("fixed", "both") else None
    moving_valid = none if masked in ("moving", "both") else None
    found = match(texture(), texture(), fixed_valid, moving_valid)
    assert found.shape == (len(CHANNELS), *NODES)
    assert np.isnan(found).all()
    kept, reasons = reject_outliers(found, spacing_px=16, config=FilterConfig())
    assert np.isnan(kept).all()
    assert not reasons.any()
    tissue = np.zeros(NODES, bool)
    assert not untied_nodes([kept], tissue, 4).any()


def test_a_blank_section_matches_nothing_at_any_grey_value():
    for grey in (0.0, 0.5, 255.0):
        blank = np.full(SHAPE, grey, np.float32)
        assert np.isnan(match(blank, texture())).all()
        assert np.isnan(match(texture(), blank)).all()


def test_a_duplicate_section_matches_itself_in_place_and_exactly():
    same = match(texture(), texture())
    inside = same[:, 3:-3, 3:-3]
    np.testing.assert_allclose(inside[:2], 0, atol=0.01)
    assert inside[CHANNELS.index("score")].min() > 0.999
    assert trusted(same)[3:-3, 3:-3].all()


def test_a_misspelt_setting_is_an_error_that_names_the_right_one():
    with pytest.raises(ConfigError, match=r"filter\.min_scor: no such setting.*'min_score'"):
        parse_config({"filter": {"min_scor": 0.3}})
    with pytest.raises(ConfigError, match=r"match\.retry_neighbour: .*'retry_neighbours'"):
        parse_config({"match": {"retry_neighbour": 2}})


# --------------------------------------------------------------------------- of a stack


def volume(folder, change):
    """Write six sections of a phantom in register, after `change(list of images)`."""
    phantom = Phantom(
        PhantomConfig(
            sections=6, height=384, width=384, seed=4, fold_section=None, blank_section=None
        )
    )
    images = [np.clip(phantom.tissue(z), 1, 254).astype(np.uint8) for z in range(6)]
    images = change(images)
    uri = (folder / "raw.zarr").as_uri()
    rows = iter([as_rows(image) for image in images])
    write_volume(uri, (len(images), 384, 384), DEFAULT_RESOLUTION_NM, rows, None)
    return uri


def damage(images):
    images[2][:] = 0
    images[3] = images[1].copy()
    images[4][:, 130:] = 0  # sections 4 and 5 show no common tissue
    images[5][:, :250] = 0
    return images


@pytest.fixture(scope="module")
def damaged(cluster, tmp_path_factory):  # noqa: F811
    """A stack with a blank section, a duplicate, and a pair without common tissue, aligned."""
    folder = tmp_path_factory.mktemp("damaged")
    run_uri = prepare(volume(folder, damage), (folder / "out.zarr").as_uri(), LAYOUT)
    for stage in ORDER:
        run_stage(stage, run_uri, cluster)
    return run_uri


def trusted_of(run_uri):
    """How many matches of each pair (z, d) are trusted."""
    judged = records.read_records(run_uri, "filter", "sections").values()
    return {
        (record["z"], int(d)): pair["trusted"]
        for record in judged
        for d, pair in record["pairs"].items()
    }


def test_a_blank_section_is_stepped_over_and_named(damaged):
    assert inputs.missing(damaged) == {2}
    assert trusted_of(damaged)[3, 2] > 100
    assert "1 section bridged: z 2" in read_json(damaged + "/qc.json")["verdict"]["reasons"]


def test_a_duplicate_section_lies_on_its_original(damaged):
    found = inputs.read_row(open_array(damaged, "trusted/2"), 3)
    assert np.nanmax(np.hypot(*found[:2])) < 0.5  # to which the coarse places agree
    assert np.nanmedian(found[CHANNELS.index("score")]) > 0.99


def test_a_pair_without_common_tissue_is_named_and_the_others_are_aligned(damaged):
    assert trusted_of(damaged)[5, 1] == 0
    told = "1 pair without a trusted match, tied only through others: z 5-4"
    assert told in read_json(damaged + "/qc.json")["verdict"]["reasons"]
    assert trusted_of(damaged)[4, 1] > 20
    assert trusted_of(damaged)[5, 2] > 20  # over section 4, to section 3


def test_a_single_section_is_refused_by_what_is_missing(tmp_path):
    uri = volume(tmp_path, lambda images: images[:1])
    with pytest.raises(DataError, match="holds 1 section; aligning needs at least 2"):
        prepare(uri, (tmp_path / "out.zarr").as_uri(), LAYOUT)


@pytest.mark.parametrize("shown", [0, 1])
def test_a_stack_without_two_sections_of_tissue_is_refused_before_it_is_matched(
    cluster,  # noqa: F811
    tmp_path,
    shown,
):
    def blank(images):
        for image in images[shown:]:
            image[:] = 0
        return images

    run_uri = prepare(volume(tmp_path, blank), (tmp_path / "out.zarr").as_uri(), LAYOUT)
    for stage in ORDER[: ORDER.index("match")]:
        run_stage(stage, run_uri, cluster)
    with pytest.raises(StageFailed, match=rf"of 6 sections, {shown} show enough tissue"):
        run_stage("match", run_uri, cluster)
