"""Training NCCNet: the loss falls, and a kill changes nothing."""

import csv
import json
from importlib.util import find_spec

import numpy as np
import pytest

if find_spec("tensorflow") is None:
    pytest.skip("TensorFlow is not installed", allow_module_level=True)

import cv2

from inference.config import NCCNetConfig, NCCTrainingConfig
from inference.errors import TrainingError
from inference.model_file import read_model
from inference.nccnet_training import _Trainer, train
from inference.pair_samples import PairPlace
from inference.training_files import CHECKPOINT, EVENTS, LOG, MODEL


def stack():
    """Three sections of common tissue, each under noise and a shading of its own."""
    random = np.random.default_rng(0)
    tissue = cv2.GaussianBlur(random.normal(size=(256, 256)), (0, 0), 3)
    found = []
    for _ in range(3):
        own = cv2.GaussianBlur(random.normal(size=(256, 256)), (0, 0), 1)
        shade = cv2.GaussianBlur(random.normal(size=(256, 256)), (0, 0), 40)
        image = tissue / tissue.std() + 0.7 * own / own.std() + shade / shade.std()
        found.append(np.clip(image * 35 + 128, 1, 255).astype(np.uint8))
    return np.stack(found)


VOXELS = stack()
CONFIG = NCCTrainingConfig(
    network=NCCNetConfig(widths=(4, 8), grey_zero=128, grey_unit=64), search_px=64, template_px=32,
    slack_px=4, radius_px=4, rim_px=8, batch=4, steps=24, check_every=6, learning_rate=3e-3,
    pyramid=True, loss="contrast",
)  # fmt: skip


def read(z, y, x, side_px):
    return VOXELS[z, y : y + side_px, x : x + side_px]


def places(z, n, seed):
    corners = np.random.default_rng(seed).integers(0, 176, (n, 2))
    return [PairPlace(z, 1, int(y), int(x)) for y, x in corners]


def trained(folder, config=CONFIG, **kwargs):
    return train(places(1, 24, 0), places(2, 12, 1), read, config, folder, **kwargs)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder, seen = tmp_path_factory.mktemp("whole"), []
    trained(folder, tell=seen.append)
    return folder, seen


def test_held_out_pairs_are_told_apart_better_than_before(whole):
    _, seen = whole
    assert [progress.step for progress in seen] == [0, 6, 12, 18, 24]
    assert seen[-1].loss < seen[1].loss
    assert seen[-1].best > 2 * seen[0].r_delta
    assert seen[-1].best > 1.3 * seen[0].raw
    assert seen[-1].has_ended


def test_training_that_was_killed_ends_with_the_same_weights(whole, tmp_path):
    folder, _ = whole
    steps = iter(range(1, 1000))
    trained(tmp_path, stop=lambda: next(steps) >= 15)  # between two checkpoints
    trained(tmp_path)
    assert (tmp_path / MODEL).read_bytes() == (folder / MODEL).read_bytes()
    with np.load(tmp_path / CHECKPOINT) as ours, np.load(folder / CHECKPOINT) as theirs:
        assert ours.files == theirs.files
        for name in set(ours.files) - {"state"}:
            np.testing.assert_array_equal(ours[name], theirs[name])
    with (tmp_path / LOG).open() as ours, (folder / LOG).open() as theirs:
        rows, expected = ([{**r, "at": ""} for r in csv.DictReader(f)] for f in (ours, theirs))
    assert rows == expected


def test_the_best_network_is_a_model_like_any_other(whole):
    folder, seen = whole
    assert read_model(folder / MODEL).config == CONFIG.network
    assert (folder / EVENTS).stat().st_size > 100 * len(seen)
    state = json.loads(str(np.load(folder / CHECKPOINT)["state"]))
    assert state["progress"]["best"] == max(progress.r_delta for progress in seen)


def test_rims_are_seen_by_the_network_and_not_correlated(tmp_path):
    trainer, random = _Trainer(CONFIG, tmp_path), np.random.default_rng(3)
    search, template = (random.uniform(0, 255, (2, n, n, 1)).astype(np.float32) for n in (80, 48))
    place = np.array([[5, 9], [12, 4]])
    other = [random.uniform(0, 255, image.shape).astype(np.float32) for image in (search, template)]
    for changed, image in zip(other, (search, template), strict=True):
        changed[:, 8:-8, 8:-8] = image[:, 8:-8, 8:-8]
    grey = [trainer._margins(images, place) for images in ([search, template], other)]
    np.testing.assert_array_equal(*grey)
    levels = [trainer.model(images)[-1].numpy() for images in (search, other[0])]
    assert (levels[0] != levels[1])[:, 8:-8, 8:-8].any()


def test_a_checkpoint_of_other_settings_is_not_gone_on_from(whole):
    folder, _ = whole
    with pytest.raises(TrainingError, match="was made with other settings"):
        trained(folder, CONFIG.model_copy(update={"seed": 2}))


@pytest.mark.slow
def test_training_ends_when_nothing_gets_better(tmp_path):
    config = CONFIG.model_copy(update={"learning_rate": 1e-45, "patience": 2, "steps": 1000})
    assert trained(tmp_path, config).step == 12


def test_too_few_pairs_are_refused(tmp_path):
    with pytest.raises(TrainingError, match="3 held-out pairs are fewer than batch=4"):
        train(places(1, 24, 0), places(2, 3, 1), read, CONFIG, tmp_path)
