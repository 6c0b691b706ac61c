"""What is timed of the NCC layer and of NCCNet; TensorFlow is imported on first use."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from inference.backends.by_engine import predictor as by_engine
from inference.backends.by_openvino import predictor as by_openvino
from inference.transform import NetworkTransform
from tests.benchmarks.rounds import Contest, Result
from tests.inference.networks import drawn, grey

WINDOW_PX = 128
TEMPLATES_PX = (3, 7, 10, 12, 14, 16, 24, 32)
PUBLISHED_PX = (512, 160)
WIDTHS = ((8, 16, 32), (8, 16, 32, 64), (16, 32, 64, 128))
_TURN_S = 0.05


def layer_contest(
    window_px: int, template_px: int, *, batch: int, gradient: bool, turn_s: float = _TURN_S
) -> Contest:
    """Return the contest of the two ways to compute correlograms; "spatial" is the baseline."""
    import tensorflow as tf

    from inference.tf_ncc import Method, correlograms

    random = np.random.default_rng(0)
    pair = [
        tf.constant(random.normal(size=(batch, side, side, 1)), tf.float32)
        for side in (window_px, template_px)
    ]

    def computed(method: Method) -> Callable[[], Any]:
        @tf.function
        def scores() -> Any:
            return correlograms(*pair, method=method)

        @tf.function
        def gradients() -> Any:
            with tf.GradientTape() as tape:
                tape.watch(pair)
                value = tf.reduce_sum(tf.square(correlograms(*pair, method=method)))
            return tape.gradient(value, pair)

        return gradients if gradient else scores

    ways = {method: computed(method) for method in ("spatial", "fft")}
    assert_equal(ways["spatial"](), ways["fft"]())
    turns = max(_repeats(way, turn_s) for way in ways.values())
    counts = {name: _repeats(way, turn_s) for name, way in ways.items()}
    return Contest(
        f"{template_px} px in {window_px} px",
        work=turns * batch,
        ways={name: partial(_repeat, way, counts[name]) for name, way in ways.items()},
        unit="correlograms",
        per=1,
        shares={name: counts[name] / turns for name in ways},
    )


def network_contest(widths: tuple[int, ...], side_px: int) -> Contest:
    """Return the contest of the backends: bare on one image, and over a section in tiles."""
    from inference.backends import by_keras

    network, section = drawn(widths), grey((side_px, side_px))
    backends = {"Keras": by_keras.predictor(network), "engine": by_engine(network)}
    if find_spec("openvino"):
        backends["OpenVINO"] = by_openvino(network, threads=1)
    found = [predict(section) for predict in backends.values()]
    for other in found[1:]:
        np.testing.assert_allclose(found[0], other, rtol=0, atol=1e-5)
    valid = np.ones(section.shape, bool)
    ways: dict[str, Callable[[], object]] = {}
    for name, predict in backends.items():
        ways[f"{name}, the network alone"] = partial(predict, section)
        transform = NetworkTransform(network, predict)
        ways[f"{name}, a section with its margin"] = partial(transform, section, valid)
    title = "-".join(map(str, widths))
    return Contest(title, work=section.size, ways=ways, unit="Mpx", per=1e6)


def assert_equal(ours: Any, theirs: Any) -> None:
    """Check that two ways found the same: nothing is timed that differs.

    To 1e-4, or to 1e-3 of the largest: a gradient is a sum over thousands of places, in float32.
    """
    for a, b in zip(_listed(ours), _listed(theirs), strict=True):
        tolerance = max(1e-4, 1e-3 * float(np.abs(b).max() - 1))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


def crossover_px(results: dict[int, list[Result]]) -> int | None:
    """Return the smallest template's side from which the Fourier way is always the cheaper."""
    slower = [side for side, (_, fft) in results.items() if fft.cpu_ratio <= 1]
    sides = [side for side in results if side > max(slower, default=0)]
    return min(sides, default=None)


def _listed(values: Any) -> list[Any]:
    return list(values) if isinstance(values, list | tuple) else [values]


def _repeats(way: Callable[[], object], turn_s: float) -> int:
    """Return how often to repeat what is too short to be timed."""
    way()
    before = time.perf_counter()
    way()
    return max(1, round(turn_s / max(time.perf_counter() - before, 1e-6)))


def _repeat(way: Callable[[], object], times: int) -> None:
    for _ in range(times):
        way()
