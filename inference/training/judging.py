"""How good the network of a file is; TensorFlow is loaded when somebody asks."""

from __future__ import annotations

from itertools import batched
from typing import TYPE_CHECKING

import numpy as np

from inference.training.samples import Samples, stacked

if TYPE_CHECKING:
    from inference.training.losses import Judgement

AT_A_TIME = 4
"""Samples that the network sees at once."""


def judge_file(data: bytes, samples: Samples) -> Judgement:
    """Judge a trained network by the held-out samples of `samples`.

    Parameters
    ----------
    data : bytes
        A ``.keras`` file, as training leaves it.

    Raises
    ------
    ModelError
        If it is no such file.
    """
    from inference.backends.keras_file import read_model
    from inference.training.losses import judge

    model = read_model(data)
    groups = [stacked(list(group)) for group in batched(samples.held_out(), AT_A_TIME)]
    likely = np.concatenate([np.asarray(model(g.images, training=False)) for g in groups])
    likely = likely.clip(1e-7, 1 - 1e-7)
    # Scores are what the last sigmoid or softmax was given, but for a constant of a softmax.
    scores = np.log(likely) - (np.log1p(-likely) if likely.shape[-1] == 1 else 0)
    labels = np.concatenate([group.labels for group in groups])
    return judge(scores.astype(np.float32), labels, samples.config)
