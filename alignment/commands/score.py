"""The report's correlation for any stack, so that others' results are scored by the same code."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from alignment import qc
from storage.sections import open_source, read_section


def score_source(uri: str, chunk_px: int, smoothing_px: float) -> dict[str, Any]:
    """Return the chunk correlations of neighbouring sections of a stack, summarised.

    Returns
    -------
    dict
        The fields of `alignment.qc.CorrelationSummary` over all pairs, and the same in ``pairs``.
    """
    source = open_source(uri)
    scores = qc.score_stack(
        partial(read_section, source), source.shape[0], chunk_px, smoothing_px=smoothing_px
    )
    every = qc.summarise(np.stack([score.chunks for score in scores]))
    pairs = [{"z": score.z, "fixed_z": score.fixed_z, **asdict(score.summary)} for score in scores]
    settings = {"stack": uri, "chunk_px": chunk_px, "smoothing_px": smoothing_px}
    return {**settings, **asdict(every), "pairs": pairs}
