from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from inference.engine import compile, from_keras, passes, reference
from inference.engine.engine import Engine, Settings
from inference.errors import BackendError, ConfigError, ModelError, ShapeError
from tests.inference.engine import test_passes
from tests.inference.engine.samples import sample
from tests.inference.engine.test_kernels import outputs

FAST = Settings(tuning=False)
SHAPE = (3, 8, 9, 3)  # of the nets of test_passes


def _residual_net(**settings):
    return compile(test_passes.residual_net(), tuning=False, **settings)


@pytest.mark.parametrize("make", test_passes.NETS)
def test_passes_change_no_result_of_the_kernels(make):
    graph = make()
    x = sample(SHAPE)
    expected = reference.run(graph, x[0])
    subsets = [(), *((name,) for name in passes.ALL), passes.ALL]
    for names in subsets:
        for a, b in zip(outputs(graph, x, passes=names), expected, strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=5e-5, err_msg=str(names))


def test_a_batch_is_each_of_its_samples():
    engine = _residual_net()
    x = np.concatenate([sample(SHAPE, seed) for seed in range(3)])
    whole = engine(x)
    assert whole.dtype == np.float32
    for n in range(3):
        np.testing.assert_array_equal(whole[n], engine(x[n : n + 1])[0])


@pytest.mark.parametrize("tile", [2, 4, 6])
def test_no_tile_is_larger_than_allowed(tile):
    net = test_passes.Net(channels=32, size=(6, 24, 24))
    graph = net.builder.graph([net.conv(net.x, 32)])
    engine = Engine(graph, Settings(tuning=False, largest_tile=tile))
    assert [choice.tile for _, choice in engine.choices.values()] == [tile]
    with pytest.raises(ConfigError, match=r"largest_tile=5: it is one of \(2, 4, 6\)"):
        Engine(graph, Settings(largest_tile=5))


def test_threads_give_the_same_bits():
    x = sample(SHAPE)
    one, two = _residual_net()(x), _residual_net(threads=2)(x)
    np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("is_small", [True, False])
def test_threads_share_a_batch_or_each_sample(is_small, monkeypatch):
    monkeypatch.setattr("inference.engine.engine._SMALL_BYTES", 1e9 if is_small else 0)
    x = np.concatenate([sample(SHAPE, seed) for seed in range(7)])
    one, three = _residual_net(), _residual_net(threads=3)
    np.testing.assert_array_equal(three(x), one(x))
    arenas = 3 if is_small else 1
    floats = arenas * three.program.arena_floats + 3 * three.program.scratch_floats
    assert three.working_bytes == 4 * floats


def test_an_engine_may_be_shared():
    engine = _residual_net()
    given = [sample(SHAPE, seed) for seed in range(40)]
    expected = [engine(x) for x in given]
    with ThreadPoolExecutor(8) as pool:
        for a, b in zip(pool.map(engine, given), expected, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("names", ["full", "none"])
def test_a_call_leaves_nothing_behind_for_the_next(names):
    engine = _residual_net(passes=names)
    clean = sample(SHAPE)
    before = engine(clean)
    engine(np.full((1, *SHAPE), np.nan, np.float32))
    engine(np.full((1, *SHAPE), 1e38, np.float32))
    np.testing.assert_array_equal(engine(clean), before)


def test_results_that_are_not_needed_at_once_share_memory():
    assert _residual_net().working_bytes < _residual_net(passes="none").working_bytes
    without = set(passes.ALL) - {"memory"}
    assert _residual_net().working_bytes < _residual_net(passes=without).working_bytes


def test_a_plan_says_what_was_done():
    text = _residual_net(threads=2).plan()
    for words in (
        "2 threads",
        "folded into",
        "added by",
        "written in place",
        "registers",
        "memory",
    ):
        assert words in text
    assert "pass:" not in _residual_net(passes="none").plan()


def test_strict_sums_are_direct():
    text = _residual_net(strict=True).plan()
    assert "direct" in text
    assert "Winograd" not in text


def test_a_profile_names_every_step():
    engine = _residual_net()
    found = engine.profile(sample(SHAPE))
    assert [label for label, _ in found] == list(engine.program.labels)
    assert sum(seconds for _, seconds in found) > 0


def test_what_cannot_be_is_refused():
    graph = test_passes.residual_net()
    with pytest.raises(ShapeError, match=r"compiled for batches \(n, 3, 8, 9, 3\)"):
        Engine(graph, FAST)(np.zeros((1, 3, 9, 9, 3), np.float32))
    with pytest.raises(ConfigError, match="at least one"):
        compile(graph, threads=0)
    with pytest.raises(ConfigError, match="bfloat16"):
        compile(graph, precision="bfloat16")
    with pytest.raises(BackendError, match="isa='avx1024'"):
        compile(graph, isa="avx1024")


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # of Keras
def test_a_model_is_compiled_from_its_file(tmp_path):
    pytest.importorskip("tensorflow", reason="the extra `train` is not installed")
    from tests.engine_networks import unet_2d

    shape = (16, 24, 1)
    model = unet_2d(shape, (4, 6))
    model.save(tmp_path / "model.keras")
    engine = compile(tmp_path / "model.keras", shape, tuning=False)
    x = sample(shape)
    np.testing.assert_allclose(engine(x), np.asarray(model(x)), rtol=0, atol=1e-5)
    with pytest.raises(ConfigError, match="input_shape"):
        compile(model)
    with pytest.raises(ModelError, match="input shape"):
        from_keras.read(model, (1, 16, 24, 1))
