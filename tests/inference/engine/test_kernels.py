"""Compiled kernels against numpy: every operation, every width of vectors, every way to choose."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from inference import native
from inference.engine import reference
from inference.engine.builder import Builder
from inference.engine.choices import candidates, work_of
from inference.engine.engine import Engine, Settings
from inference.engine.graph import Graph, Node
from inference.engine.lowering import lower
from inference.engine.ops import Activate, Activation, Concat, Conv, Input
from inference.engine.program import assemble
from inference.native.structures import Op
from tests.inference.engine.samples import sample

ISAS = [isa for isa in native.ISAS if native.library(isa) is not None]


def test_kernels_were_built_by_the_installation():
    assert "portable" in ISAS


def compiled(graph, **settings):
    return Engine(graph, Settings(tuning=False, **settings))


def outputs(graph, x, **settings):
    found = compiled(graph, **settings)(x)
    found = found if isinstance(found, tuple) else (found,)
    return [y[0].reshape(-1, *y.shape[-3:]) for y in found]


def _check(graph, x, tolerance=2e-5, **settings):
    expected = reference.run(graph, x.reshape(-1, *x.shape[-3:]))
    found = outputs(graph, x, **settings)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


def _layers(rank):
    pytest.importorskip("tensorflow", reason="the extra `train` is not installed")
    from tests.inference.engine import layers

    return layers.FLAT if rank == 2 else layers.SOLID


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", [(11, 14, 3), (23, 13, 21), (5, 8, 7, 3), (4, 8, 13, 19)])
def test_every_layer(isa, shape):
    for make in _layers(len(shape) - 1).values():
        from inference.engine import from_keras
        from tests.inference.engine.layers import model_of

        graph = from_keras.read(model_of(make, shape), shape)
        _check(graph, sample(shape), isa=isa)
        _check(graph, sample(shape), isa=isa, passes="none", strict=True, threads=2)


CONVOLUTIONS = [
    ((1, 3, 3), 5, 19, (1, 1, 1)),
    ((3, 3, 3), 18, 37, (1, 1, 1)),
    ((1, 5, 5), 17, 33, (1, 1, 1)),
    ((1, 1, 1), 35, 70, (1, 1, 1)),
    ((2, 3, 4), 9, 6, (1, 2, 3)),
]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("sides", "inputs", "channels", "stride"), CONVOLUTIONS)
def test_every_choice_of_a_convolution(isa, sides, inputs, channels, stride):
    """With a residual, an activation, odd sizes, and zeros that differ from side to side."""
    random = np.random.default_rng(0)
    kernel = random.normal(size=(*sides, inputs, channels)) / np.sqrt(np.prod(sides) * inputs)
    op = Conv(
        kernel.astype(np.float32),
        random.normal(size=channels).astype(np.float32),
        stride,
        ((1, 0), (2, 1), (1, 2)),
        Activation("elu", 0.9),
        random.normal(size=channels).astype(np.float32),
    )
    given = (inputs, 4, 17, 14)
    made = Conv(op.kernel, op.bias, op.stride, op.padding).shape(given)
    nodes = (
        Node("given", Input(given)),
        Node("more", Input(made)),
        Node("made", op, ("given", "more")),
    )
    graph = Graph(nodes, ("made", "made"))
    x, more = (random.normal(size=(*s[1:], s[0])).astype(np.float32) for s in (given, made))
    (expected, _) = reference.run(graph, x, more)
    library = native.library(isa)
    lanes = library.petalign_engine_lanes()
    possible = candidates(work_of(op, made, lanes, inputs, is_plain=False), is_strict=False)
    assert len(possible) > 1
    for choice in possible:
        for threads in (1, 2):
            program = assemble(
                lower(graph, lanes, lambda _, c=choice: c, threads=threads).steps, is_shared=True
            )
            found = [np.full((*made[1:], channels), np.nan, np.float32) for _ in range(2)]
            _run(library, program, threads, [x, more, *found])
            np.testing.assert_allclose(found[0], expected, rtol=0, atol=3e-5, err_msg=str(choice))
            np.testing.assert_array_equal(found[0], found[1])


def _run(library, program, threads, arrays):
    context = library.petalign_engine_open(threads, program.arena_floats, program.scratch_floats)
    addresses = (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))
    library.petalign_engine_run(context, program.ops, len(program.ops), addresses, None)
    library.petalign_engine_close(context)


@pytest.mark.parametrize("isa", ISAS)
def test_both_sides_declare_the_same_structure(isa):
    assert native.library(isa).petalign_engine_op_bytes() == ctypes.sizeof(Op)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("kind", ["tanh", "sigmoid", "elu"])
def test_activations_are_exact_to_two_units_of_1(isa, kind):
    x = np.concatenate([np.linspace(-100, 100, 40_001), np.geomspace(1e-30, 1e-2, 1000)])
    x = np.concatenate([x, -x]).astype(np.float32).reshape(1, 2, -1, 1)
    builder = Builder(is_flat=True)
    given = builder.input("grey", (1, 1, *x.shape[1:3]))
    graph = builder.graph([builder.add("f", Activate(Activation(kind, 1.0)), given)])
    (found,) = outputs(graph, x, isa=isa)
    expected = reference.activate(x[0].astype(np.float64), Activation(kind, 1.0))
    error = abs(found[0] - expected) / np.maximum(abs(expected), 1)
    assert error.max() < 2e-7


@pytest.mark.parametrize(("tile", "side", "bound"), [(2, 3, 1e-6), (4, 3, 4e-6), (4, 5, 2e-5)])
def test_errors_of_transforms_are_bounded(tile, side, bound):
    """Relative to the layer's largest output; 64 channels, values of order 1."""
    random = np.random.default_rng(0)
    kernel = (random.normal(size=(1, side, side, 64, 64)) / (8 * side)).astype(np.float32)
    margins = ((0, 0), (side // 2, side // 2), (side // 2, side // 2))
    op = Conv(kernel, np.zeros(64, np.float32), padding=margins)
    graph = Graph((Node("given", Input((64, 1, 24, 24))), Node("made", op, ("given",))), ("made",))
    x = random.normal(size=(1, 24, 24, 64)).astype(np.float32)
    (expected,) = reference.run(graph, x)
    library = native.library(ISAS[-1])
    lanes = library.petalign_engine_lanes()
    work = work_of(op, graph.shapes["made"], lanes, 64, is_plain=False)
    choice = next(c for c in candidates(work, is_strict=False) if c.tile == tile)
    program = assemble(lower(graph, lanes, lambda _: choice).steps, is_shared=True)
    found = np.empty((1, 24, 24, 64), np.float32)
    _run(library, program, 1, [x, found])
    assert abs(found - expected).max() < bound * abs(expected).max()


def test_a_nan_is_passed_on():
    builder = Builder(is_flat=True)
    x = builder.input("grey", (1, 1, 1, 9))
    kinds = ("relu", "leaky", "elu", "tanh", "sigmoid")
    made = [builder.add(k, Activate(Activation(k, 0.1)), x) for k in kinds]
    given = np.zeros((1, 1, 9, 1), np.float32)
    given[0, 0, 4] = np.nan
    for y in outputs(builder.graph(made), given):
        assert np.isnan(y[0, 0, 4])
        assert np.isfinite(np.delete(y[0, 0], 4)).all()


@pytest.mark.parametrize("isa", ISAS)
def test_joined_channels_leave_gaps_that_convolutions_skip(isa):
    from tests.inference.engine.test_passes import Net

    net = Net(channels=21, size=(2, 9, 11))
    parts = [net.elu(net.conv(net.x, n)) for n in (5, 17, 3)]
    joined = net.builder.add("joined", Concat(), *parts)
    graph = net.graph(net.conv(joined, 6), parts[1])
    assert "in place" in " ".join(compiled(graph).graph.notes)
    _check(graph, sample((2, 9, 11, 21)), isa=isa)
