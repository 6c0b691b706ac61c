"""A plan made from what the user has: a source, or only its shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from alignment.config import PipelineConfig
from alignment.errors import ConfigError
from alignment.planning.marking import marking_to_be
from alignment.planning.networks import gflop_per_mpx, network_to_be
from alignment.planning.plans import Plan, guess_of, plan_stages, resolution_of
from alignment.planning.prices import Prices
from alignment.planning.rates import NetworkRate, Rates
from alignment.planning.samples import sample_stored
from alignment.planning.stack import CANVAS_GROWTH, Stack
from alignment.planning.work import network_gflop, work_of
from inference.config import NCCNetConfig
from storage.grid import ZYX
from storage.sections import open_source


def plan_source(
    source: str,
    config: PipelineConfig,
    *,
    rates: Rates,
    prices: Prices,
    workers: int = 1,
    canvas: tuple[int, ...] | None = None,
) -> tuple[Plan, Stack]:
    """Plan a run over a source, some of whose voxels are read to see how they compress."""
    opened = open_source(source)
    known = sample_stored(opened, config)
    return _planned(
        source, opened.shape, resolution_of(config, opened.resolution_nm), config, rates, prices,
        known, workers, canvas,
    )  # fmt: skip


def plan_shape(
    shape: ZYX,
    config: PipelineConfig,
    *,
    rates: Rates,
    prices: Prices,
    resolution_nm: tuple[float, ...] | None = None,
    workers: int = 1,
    canvas: tuple[int, ...] | None = None,
) -> tuple[Plan, Stack]:
    """Plan a run over a stack of which nothing but its shape (z, y, x) is known."""
    name = "x".join(map(str, shape))
    resolution = resolution_of(config, resolution_nm)
    return _planned(name, shape, resolution, config, rates, prices, {}, workers, canvas)


def _planned(
    source: str,
    shape: ZYX,
    resolution: tuple[float, ...],
    config: PipelineConfig,
    rates: Rates,
    prices: Prices,
    sampled: Mapping[str, float],
    workers: int,
    canvas: tuple[int, ...] | None,
) -> tuple[Plan, Stack]:
    if len(shape) != 3 or shape[0] < 2 or min(shape) < 1:
        raise ConfigError(f"a stack has two sections or more, (z, y, x); got {shape}")
    stored = {**rates.stored, **sampled}
    stack = Stack(shape, config, guess_of(rates, canvas=canvas), network_to_be(config))
    marking = marking_to_be(config, stack.run.shape_at(config.masks.mip))
    stack = replace(stack, marking=marking)
    stages = plan_stages(stack, rates, stored, workers=workers)
    told = _assumptions(stack, rates, prices, sampled)
    plan = Plan(source, shape, stack.canvas, resolution, stack.slabs, stages, stored, told, prices)
    return plan, stack


def _assumptions(
    stack: Stack, rates: Rates, prices: Prices, sampled: Mapping[str, float]
) -> tuple[str, ...]:
    """Say what the plan took for granted."""
    ny, nx = stack.canvas
    grown = "as given" if stack.guess.canvas else f"{CANVAS_GROWTH:g} times the largest section"
    how = "sections of this source, tried" if sampled else "the stacks that rates were measured on"
    shown = {**rates.stored, **sampled}
    sizes = ", ".join(f"{name} {shown[name]:.2f}" for name in ("sections", "features", "aligned"))
    told = [
        f"aligned volume {ny:,} x {nx:,} px, {grown}; no section is missing",
        f"bytes in the store per byte of values, of {how}: {sizes}",
        f"{stack.guess.retried:.0%} of the blocks are matched again with a farther section",
        f"rates: {rates.measured}",
        f"prices: {prices.as_of}",
    ]
    if stack.network is not None:
        told.append(_told_of_network(stack, stack.network, rates.network))
    if stack.marking is not None:
        told.append(
            f"the network that marks defects takes {stack.marking.gflop:,.1f} GFLOP a section, at "
            f"{rates.network.gflop_per_s:,.1f} GFLOP a core-second, as one of features does"
        )
    if stack.is_cut:
        told.append(f"relaxation in {stack.boxes.count:,} boxes takes {stack.guess.sweeps} sweeps")
    if stack.slabs > 1:
        told.append(
            f"{stack.slabs:,} slabs of {stack.config.volume.slab_depth} sections, a Dask graph each"
        )
    return tuple(told)


def _told_of_network(stack: Stack, network: NCCNetConfig, rate: NetworkRate) -> str:
    """Say what the time of features by a network is made of."""
    widths, each = "-".join(map(str, network.widths)), gflop_per_mpx(network)
    margins = network_gflop(stack) / each / work_of("features", stack)
    return (
        f"a network of widths {widths} takes {each:,.1f} GFLOP a Mpx, over {margins:.2f} times the "
        f"pixels for the margins of its tiles, at {rate.gflop_per_s:,.1f} GFLOP a core-second "
        f"({rate.measured})"
    )
