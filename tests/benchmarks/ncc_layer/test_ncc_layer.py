"""The contests of the NCC layer, once and small; ``table.py`` prints them at full size."""

from __future__ import annotations

import pytest

from tests.benchmarks.ncc_layer.contests import (
    assert_equal,
    crossover_px,
    layer_contest,
    network_contest,
)
from tests.benchmarks.ncc_layer.table import layer_table
from tests.benchmarks.rounds import Result, hold

tf = pytest.importorskip("tensorflow", reason="the extra `train` is not installed")


@pytest.mark.parametrize("gradient", [False, True])
def test_spatial_and_fft(benchmark, gradient):
    """160 px in 512 px for each pair of a batch of training."""
    contest = layer_contest(24, 5, batch=2, gradient=gradient, turn_s=0)
    results = benchmark.pedantic(lambda: hold(contest, 1), rounds=1)
    assert [result.way for result in results] == ["spatial", "fft"]
    assert all(result.per_s > 0 for result in results)


def test_a_network_over_a_section(benchmark):
    """A section of 1 mm2 at 4 nm has 62,500 Mpx at mip 0, and 3,900 at mip 2."""
    contest = network_contest((2, 3), 32)
    results = benchmark.pedantic(lambda: hold(contest, 1), rounds=1)
    assert len(results) >= 2
    assert all(result.per_cpu_s > 0 for result in results)


def test_other_answers_are_noticed():
    with pytest.raises(AssertionError):
        assert_equal([tf.zeros(3)], [tf.constant([0, 0, 0.01])])


def _results(cpu_ratio):
    return [Result("spatial", 1, 1, 1, 1, 1, 1), Result("fft", 1, 1, 1, 1, 1, cpu_ratio)]


def test_the_crossover_is_where_fft_stays_the_cheaper():
    ratios = {3: 0.5, 5: 1.2, 7: 0.9, 9: 1.1, 12: 3.0}
    assert crossover_px({side: _results(ratio) for side, ratio in ratios.items()}) == 9
    assert crossover_px({3: _results(0.5)}) is None


@pytest.mark.slow
def test_the_table_says_where_the_two_cross():
    table = layer_table((3,), 12, 1)
    assert "| 3 | " in table
    assert "FFT is the cheaper from templates of" in table
