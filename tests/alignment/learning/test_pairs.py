"""Pairs to learn from: hard ones, from sections that are apart, without where they match."""

import json
from importlib.util import find_spec

import cv2
import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from alignment.cli import app
from alignment.errors import ConfigError, DataError
from alignment.learning.config import PairsConfig, parse_learn_config
from alignment.learning.nccnet import pairs_of
from alignment.learning.pairs import find_pairs, raw_r_delta
from alignment.learning.stacks import Stacks, open_stack
from inference.config import NCCTrainingConfig

NZ, SIDE = 10, 220
TRAINING = {
    "network": {"widths": [4, 8]}, "search_px": 64, "template_px": 32, "slack_px": 4,
    "radius_px": 5, "batch": 4, "steps": 8, "check_every": 4, "rim_px": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    """Sections of common tissue under noise of their own; a quarter of each is blank."""
    random = np.random.default_rng(0)
    tissue = cv2.GaussianBlur(random.normal(size=(SIDE, SIDE)), (0, 0), 3)
    sections = []
    for _ in range(NZ):
        own = cv2.GaussianBlur(random.normal(size=(SIDE, SIDE)), (0, 0), 2)
        image = tissue / tissue.std() + own / own.std()
        sections.append(np.clip(image * 30 + 120, 1, 255).astype(np.uint8))
        sections[-1][:110, :110] = 0
    path = tmp_path_factory.mktemp("learned") / "raw.tif"
    tifffile.imwrite(path, np.stack(sections))
    return path.as_uri()


def config(**changes):
    return PairsConfig(**{"pairs": 60, "held_out": 20, "held_out_sections": 0.3} | changes)


def found(raw, **changes):
    return find_pairs(stacks(raw), config(**changes), NCCTrainingConfig(**TRAINING))


def stacks(*uris, mip=0):
    return Stacks(tuple(open_stack(uri, mip) for uri in uris))


def test_pairs_are_hard_show_tissue_and_lie_in_the_stack(raw):
    pairs, stack = found(raw), open_stack(raw, 0)
    assert (len(pairs.train), len(pairs.held_out)) == (60, 20)
    for z, d, y, x in (*pairs.train, *pairs.held_out):
        search, moving = (stack(k, y, x, 80) for k in (z - d, z))
        assert search.shape == (80, 80)
        assert 0.01 <= raw_r_delta(search[8:72, 8:72], moving[24:56, 24:56], 5) <= 0.2
        assert max((search == 0).mean(), (moving == 0).mean()) <= 0.25
    assert {d for _, d, _, _ in pairs.train} == {1, 2}
    assert set(pairs.rejected) == {"no tissue", "easy", "no peak"}


def test_held_out_sections_are_seen_by_no_pair_of_training(raw):
    pairs = found(raw)
    seen, held = ({k for z, d, *_ in p for k in (z, z - d)} for p in (pairs.train, pairs.held_out))
    assert max(seen) < min(held) == 7


def test_stacks_share_the_pairs_evenly_and_no_pair_spans_two(raw, tmp_path):
    small = tmp_path / "small.tif"
    tifffile.imwrite(small, np.stack([open_stack(raw, 0)(z, 0, 0, SIDE) for z in range(5)]))
    both = stacks(raw, small.as_uri())
    assert both.starts == (0, NZ, NZ + 5)
    np.testing.assert_array_equal(both(NZ + 3, 8, 9, 50), both(3, 8, 9, 50))
    pairs = find_pairs(both, config(held_out_sections=0.4), NCCTrainingConfig(**TRAINING))
    for found, number in ((pairs.train, 60), (pairs.held_out, 20)):
        parts = [int(z >= NZ) for z, *_ in found]
        assert (len(parts), sum(parts)) == (number, number // 2)
        assert all(int(z - d >= NZ) == part for (z, d, *_), part in zip(found, parts, strict=True))


def test_the_same_settings_find_the_same_pairs_and_keep_no_match(raw, tmp_path):
    settings = parse_learn_config({"mip": 0, "pairs": config().model_dump(), "training": TRAINING})
    told = []
    _, pairs = pairs_of([raw], tmp_path, settings, lambda *n: told.append(n))
    assert told[-1] == (80, 80)
    assert pairs == found(raw)
    stored = json.loads((tmp_path / "pairs.json").read_text())
    assert {len(place) for place in stored["train"]} == {4}, "z, d and a window; no offset"
    assert pairs_of([raw], tmp_path, settings, lambda *_: pytest.fail("looked again"))[1] == pairs
    other = settings.model_copy(update={"mip": 1})
    with pytest.raises(ConfigError, match="give another folder"):
        pairs_of([raw], tmp_path, other, lambda *_: None)


def test_a_stack_without_hard_pairs_says_which_setting_to_change(raw):
    with pytest.raises(DataError, match="raise max_r_delta"):
        found(raw, max_r_delta=0.011, tries=1)
    with pytest.raises(DataError, match="give a finer mip"):
        find_pairs(stacks(raw, mip=2), config(), NCCTrainingConfig(**TRAINING))


def test_windows_of_a_source_are_those_of_the_section_and_blank_beyond(raw):
    stack = open_stack(raw, 1)
    assert stack.shape == (NZ, SIDE // 2, SIDE // 2)
    whole = stack(3, 0, 0, 110)
    np.testing.assert_array_equal(stack(3, 40, 60, 20), whole[40:60, 60:80])
    beyond = stack(3, -5, 100, 20)
    np.testing.assert_array_equal(beyond[5:, :10], whole[:15, 100:])
    assert not beyond[:5].any()
    assert not beyond[:, 10:].any()


def test_a_wrong_setting_is_named_with_what_is_near():
    with pytest.raises(ConfigError, match=r"training\.serch_px: no such setting; did you mean"):
        parse_learn_config({"training": {"serch_px": 64}})


@pytest.mark.slow
@pytest.mark.skipif(find_spec("tensorflow") is None, reason="TensorFlow is not installed")
def test_the_command_trains_and_goes_on(raw, tmp_path):
    settings = ["mip=0", "pairs.pairs=60", "pairs.held_out=20", "pairs.held_out_sections=0.3"]
    settings += [f"training.{k}={v}" for k, v in TRAINING.items() if k != "network"]
    command = ["train", "nccnet", raw, str(tmp_path), "--json"]
    command += ["--set", "training.network.widths=[4, 8]"]
    for setting in settings:
        command += ["--set", setting]
    first = CliRunner().invoke(app, command)
    assert first.exit_code == 0, first.output
    told = json.loads(first.stdout)
    assert told["steps"] == 8
    assert json.loads(CliRunner().invoke(app, command).stdout) == told
