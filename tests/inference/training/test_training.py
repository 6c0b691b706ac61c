"""Training in one process: it learns, a kill changes nothing, and over-training ends it."""

from dataclasses import replace
from importlib.util import find_spec

import cv2
import numpy as np
import pytest

if find_spec("tensorflow") is None:
    pytest.skip("TensorFlow is not installed", allow_module_level=True)

from inference.backends.keras_file import KerasNetwork
from inference.errors import TrainingError
from inference.keras_on_tensorflow import tf
from inference.training.config import ElasticConfig, RSUNetConfig, TrainConfig, UNetConfig
from inference.training.files import CHECKPOINT, EVENTS, JOURNAL, LOG, MODEL, PICTURES
from inference.training.journal import parse
from inference.training.learner import Learner
from inference.training.losses import judge, losses_of
from inference.training.progress import read_rows
from inference.training.samples import Samples, stacked
from inference.training.synchronous import make_strategy, train_in_step
from inference.training.triptych import GAP_PX

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def volume():
    random = np.random.default_rng(0)
    images = np.stack([cv2.GaussianBlur(random.normal(size=(96, 96)), (0, 0), 4) for _ in range(6)])
    images = np.clip(images / images.std() * 50 + 128, 0, 255).astype(np.uint8)
    return images, (images > 140).astype(np.uint8)


IMAGES, LABELS = volume()
CONFIG = TrainConfig(
    network=UNetConfig(layers=2, features_root=4, padding="same", dropout=0.2, head="sigmoid"),
    patch_px=(1, 32, 32), batch=2, steps_per_epoch=8, epochs=4, held_out=4, learning_rate=3e-3,
    augment=ElasticConfig(elastic_px=3),
)  # fmt: skip


def samples(config):
    def read(start, stop):
        box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
        return IMAGES[box], LABELS[box]

    return Samples(read, IMAGES.shape, range(4), range(4, 6), config)


def trained(folder, config=CONFIG, **kwargs):
    return train_in_step(samples(config), folder, mode="local", **kwargs)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder, seen = tmp_path_factory.mktemp("whole"), []
    trained(folder, tell=seen.append)
    return folder, seen


def test_it_learns_and_its_best_network_is_a_model_like_any_other(whole):
    folder, seen = whole
    assert [progress.epoch for progress in seen] == [0, 1, 2, 3, 4]
    assert [progress.samples for progress in seen] == [0, 16, 32, 48, 64]
    assert seen[-1].loss < seen[1].loss
    assert seen[-1].held_out_loss < seen[0].held_out_loss
    assert seen[-1].best == max(progress.dice for progress in seen) > 0.5
    network = KerasNetwork((folder / MODEL).read_bytes())
    assert network.shrink((1, 32, 48)) == (0, 0, 0)
    made = network(np.random.default_rng(0).random((1, 2, 32, 48, 1), np.float32))
    assert made.shape == (1, 2, 32, 48, 1)
    assert 0 <= made.min() <= made.max() <= 1
    events = tf.data.TFRecordDataset(str(folder / EVENTS))
    assert sum(1 for _ in events) == 1 + len(seen)


def test_the_journal_has_the_published_grammar(whole):
    folder, seen = whole
    entries = list(parse((folder / JOURNAL).read_text().splitlines()))
    assert [e.number for e in entries if e.kind == "iteration"] == list(range(0, 32, 2))
    assert [e.number for e in entries if e.kind == "epoch"] == [0, 1, 2, 3]
    errors = [e.error_percent for e in entries if e.kind == "verification"]
    np.testing.assert_allclose(errors, [100 * p.held_out_error for p in seen], atol=0.051)
    kinds = [e.kind for e in entries]
    assert kinds == ["verification"] + (["iteration"] * 4 + ["epoch", "verification"]) * 4


def test_training_that_was_stopped_ends_with_the_same_weights(whole, tmp_path):
    folder, _ = whole
    trained(tmp_path, CONFIG.model_copy(update={"epochs": 2}))
    with (tmp_path / JOURNAL).open("a") as file:  # what a kill leaves beyond the checkpoint
        file.write("Iter 16, Minibatch Loss= 9.0, Training Accuracy= 0.1, Minibatch error= 90.0%\n")
    trained(tmp_path)
    with np.load(tmp_path / CHECKPOINT) as ours, np.load(folder / CHECKPOINT) as theirs:
        assert ours.files == theirs.files
        for name in set(ours.files) - {"state"}:
            np.testing.assert_array_equal(ours[name], theirs[name])
    entries = [list(parse((f / JOURNAL).read_text().splitlines())) for f in (tmp_path, folder)]
    assert entries[0] == entries[1]
    rows = [
        [{k: v for k, v in row.items() if k not in ("at", "seconds")} for row in read_rows(f / LOG)]
        for f in (tmp_path, folder)
    ]
    assert rows[0] == rows[1]


def test_a_checkpoint_of_other_settings_is_not_gone_on_from(whole):
    folder, _ = whole
    with pytest.raises(TrainingError, match=r"other settings \(seed\): {\"seed\": 1}"):
        trained(folder, CONFIG.model_copy(update={"seed": 2}))


def test_training_ends_when_held_out_samples_get_no_better(tmp_path):
    config = CONFIG.model_copy(update={"learning_rate": 1e-30, "patience": 2, "epochs": 9})
    assert trained(tmp_path, config).epoch == 2


def test_a_loss_that_is_no_number_ends_it(tmp_path):
    config = CONFIG.model_copy(update={"learning_rate": 1e30})
    with pytest.raises(TrainingError, match=r"smaller training\.learning_rate than 1e\+30"):
        trained(tmp_path, config)


def test_a_picture_shows_image_mask_and_prediction(tmp_path):
    network = UNetConfig(layers=1, features_root=2, padding="valid", dropout=0, head="softmax")
    changed = {"network": network, "epochs": 1, "steps_per_epoch": 1, "picture_every": 1}
    config = CONFIG.model_copy(update=changed)
    trained(tmp_path, config)
    assert [path.name for path in sorted((tmp_path / PICTURES).iterdir())] == [
        "epoch-0000.png", "epoch-0001.png",
    ]  # fmt: skip
    picture = cv2.imread(str(tmp_path / PICTURES / "epoch-0001.png"), cv2.IMREAD_UNCHANGED)
    assert picture.shape == (32, 3 * 32 + 2 * GAP_PX)
    first = next(samples(config).held_out())
    inner = first.images[0, 2:-2, 2:-2, 0]
    np.testing.assert_array_equal(picture[:, :32], np.rint(inner * 255))
    np.testing.assert_array_equal(picture[:, 32 + GAP_PX :][:, :32], first.labels[0] * 255)
    assert picture[:, -32:].std() > 0


def test_a_3d_network_learns_from_boxes(tmp_path):
    config = CONFIG.model_copy(
        update={
            "network": RSUNetConfig(widths=(3, 4)), "patch_px": (2, 16, 16), "epochs": 1,
            "steps_per_epoch": 2, "loss": "dice", "picture_every": 1,
        }
    )  # fmt: skip
    some = replace(samples(config), sections=range(3), held_out_sections=range(4, 5))
    seen = []
    train_in_step(some, tmp_path, mode="local", tell=seen.append)
    assert seen[-1].step == 2
    with np.load(tmp_path / CHECKPOINT) as found:  # running means have moved
        assert any(np.any(found[n] != 0) for n in found.files if n.startswith("means"))
        assert all(found[n].any() for n in found.files if n.startswith("second/000"))


@pytest.mark.parametrize("head", ["sigmoid", "softmax"])
@pytest.mark.parametrize("loss", ["cross_entropy", "dice", "pooled_dice"])
def test_losses_are_least_where_all_is_right(head, loss):
    network = UNetConfig(layers=1, padding="same", head=head)
    config = TrainConfig(network=network, loss=loss, dice_smooth_px=0)
    labels = np.random.default_rng(0).integers(0, 2, (3, 8, 8)).astype(np.int32)
    labels[0] = 0  # nothing to be found
    sure = 40.0 * (2 * labels - 1)
    scores = sure[..., np.newaxis] if head == "sigmoid" else np.stack([-sure, sure], -1)
    scores = tf.constant(scores, tf.float32)
    right, wrong = losses_of(scores, labels, config), losses_of(-scores, labels, config)
    assert right.shape == (3,)
    assert np.all(wrong > 0.9)
    if loss == "dice":  # of an empty mask, any probability is wrong
        np.testing.assert_allclose(right[1:], 0, atol=1e-5)
    else:
        np.testing.assert_allclose(right, 0, atol=1e-5)
    assert judge(scores, labels, config)[1:] == (0.0, 1.0, 1.0)
    assert judge(-scores, labels, config)[1:] == (1.0, 0.0, 0.0)


def test_what_is_dropped_depends_on_the_sample_and_nothing_else():
    learner = Learner(CONFIG, make_strategy("local", 1), synchronised=False)
    batch = samples(CONFIG).training(0)
    losses = [
        float(learner.gradients(*learner.read(), *batch, tf.constant(n, tf.int64))[2])
        for n in (0, 0, 1)
    ]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize(
    ("loss", "adds_up"), [("cross_entropy", True), ("dice", True), ("pooled_dice", False)]
)
def test_gradients_of_half_batches_add_up_if_losses_are_of_single_images(loss, adds_up):
    network = CONFIG.network.model_copy(update={"dropout": 0.0})
    config = CONFIG.model_copy(update={"network": network, "loss": loss})
    learner = Learner(config, make_strategy("local", 1), synchronised=False)
    batch = stacked([samples(config).training(n) for n in range(4)])

    def gradients(part):
        found = learner.gradients(
            *learner.read(), batch.images[part], batch.labels[part], tf.constant(0, tf.int64)
        )
        return np.concatenate([np.ravel(each) for each in found[0]])

    halves = (gradients(slice(0, 2)) + gradients(slice(2, 4))) / 2
    whole = gradients(slice(0, 4))
    apart = np.abs(halves - whole).max() / np.abs(whole).max()
    assert bool(apart < 1e-5) is adds_up
