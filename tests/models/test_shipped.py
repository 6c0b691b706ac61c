"""The network that ships is the one of its card, and is worth shipping."""

import numpy as np
import pytest
import tifffile

from alignment.learning.evaluation import EvaluationConfig, evaluate
from alignment.learning.stacks import open_stack
from alignment.learning.ways import band_pass
from inference.model_file import digest, read_model
from inference.shipped import SHIPPED
from inference.transform import load_transform
from tests.models.stacks import phantom


def test_the_card_is_that_of_the_network():
    card = SHIPPED.with_suffix(".md").read_text(encoding="utf-8")
    assert f"`{digest(SHIPPED.read_bytes())}`" in card
    network = read_model(SHIPPED)
    assert network.config.channels == 1
    assert f"{sum(value.size for value in network.weights.values()):,} weights" in card


@pytest.mark.slow
def test_it_matches_better_than_the_band_pass_on_a_phantom_that_it_never_saw(tmp_path):
    path = tmp_path / "unseen.tif"
    tifffile.imwrite(path, phantom(99, halved=True)[:6])
    ways = {"band-pass": band_pass(1.0, 12.0), "network": load_transform(SHIPPED)}
    config = EvaluationConfig(template_px=64, search_radius_px=48, distance=2, matches=800)
    found = evaluate(open_stack(str(path), 0), ways, config)
    false = {name: int(np.sum(matches.error_px > 20)) for name, matches in found.items()}
    assert false["network"] < 0.7 * false["band-pass"], false
