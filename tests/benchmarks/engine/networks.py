"""The networks that are timed, by their keys; TensorFlow is imported when one is built.

A, B and C are those that goals are set for; ``original-relu-bn`` and so on the twelve of the
published benchmark; ``block-8`` to ``block-64`` and ``flat-8`` to ``flat-64`` its sweeps over the
width of layers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

GOALS = ("A", "B", "C")
KINDS = ("original", "symmetric", "residual")
TWELVE = tuple(
    f"{kind}-{activation}{ending}"
    for kind, activation, ending in product(KINDS, ("relu", "elu"), ("-bn", ""))
)
SWEEP_WIDTHS = tuple(range(8, 65, 8))


@dataclass(frozen=True)
class Network:
    """A network and the batch that it is timed with."""

    title: str
    build: Callable[[], Any]
    """Returns a Keras model with weights that are the same each time."""
    batch: tuple[int, ...]


def find(key: str) -> Network:
    """Return the network of a key; ``small-`` before one of the twelve is for tests.

    >>> find("original-relu-bn").batch
    (1, 108, 108, 108, 3)
    >>> find("block-8").title
    'residual block of width 8'
    """
    name, _, rest = key.partition("-")
    if name == "small":
        return _twelfth(rest, is_small=True)
    if name in KINDS:
        return _twelfth(key)
    if name in ("block", "flat"):
        return _sweep(name, int(rest))
    return {
        "A": Network("A: RSUNet 28-36-48-64-80, 3D", _rsunet, (1, 18, 192, 192, 1)),
        "B": Network("B: NCCNet 8-16-32-64", _nccnet, (8, 512, 512, 1)),
        "C": Network("C: U-Net 64 to 1024", _unet_2d, (1, 512, 512, 1)),
    }[key]


def _twelfth(key: str, *, is_small: bool = False) -> Network:
    kind, activation, *ending = key.split("-")
    inputs = {"original": (108, 108, 108, 3), "symmetric": (128, 128, 128, 3)}
    shape = inputs.get(kind, (16, 192, 192, 1))
    if is_small:
        shape = {"original": (44, 44, 44, 3), "symmetric": (8, 16, 24, 3)}.get(kind, (3, 20, 12, 1))
    widths = (4, 6, 8) if is_small else None
    title = f"{kind}, {activation}{', normalised' if ending else ''}"
    build = partial(_of_twelve, kind, activation, bool(ending), widths, shape)
    return Network(title, build, (1, *shape))


def _of_twelve(
    kind: str, activation: str, is_normalised: bool, widths: Any, shape: tuple[int, ...]
) -> Any:
    from tests import engine_networks

    return engine_networks.build(kind, activation, is_normalised, widths=widths, shape=shape)


def _sweep(name: str, width: int) -> Network:
    """Return a residual block in 64^3, or a symmetric U-Net in 128^2, both as published."""
    if name == "block":
        title, batch = f"residual block of width {width}", (1, 64, 64, 64, width)
    else:
        title, batch = f"symmetric U-Net for images, width {width}", (2, 128, 128, 1)
    return Network(title, partial(_of_sweep, name, width), batch)


def _of_sweep(name: str, width: int) -> Any:
    from tests.benchmarks.engine import sweep_networks

    return {"block": sweep_networks.block, "flat": sweep_networks.flat}[name](width)


def _rsunet() -> Any:
    from tests.engine_networks import rsunet

    return rsunet()


def _unet_2d() -> Any:
    from tests.engine_networks import unet_2d

    return unet_2d((512, 512, 1))


def _nccnet() -> Any:
    from inference.backends import by_keras
    from inference.config import NCCNetConfig
    from tests.engine_networks import drawn

    return drawn(by_keras.build(NCCNetConfig(widths=(8, 16, 32, 64), grey_unit=1.0)))
