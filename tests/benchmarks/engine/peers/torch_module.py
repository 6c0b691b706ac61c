"""A module of PyTorch that computes a graph: its layers, in the order in which they run.

PyTorch is imported when a module is built: petalign's own environment doesn't have it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from tests.benchmarks.engine.peers.exchange import Network, Node

Layer = Callable[..., Any]


def build(network: Network, *, is_folded: bool) -> Any:
    """Return a module of one input and one output; `is_folded`: without normalisation if possible.

    Only normalisations right behind a convolution are folded, as PyTorch's own helper does.
    """
    from torch import nn

    nodes = _folded(network) if is_folded else network.nodes
    given = next(node.name for node in nodes if node.kind == "Input")
    steps = [node for node in nodes if node.kind != "Input"]
    layers = [LAYERS[node.kind](network, node) for node in steps]
    output = network.outputs[0]

    class Chain(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(one for one in layers if isinstance(one, nn.Module))
            self.last = _last_uses(steps, output)

        def forward(self, x: Any) -> Any:
            found = {given: x}
            for node, layer in zip(steps, layers, strict=True):
                found[node.name] = layer(*(found[name] for name in node.inputs))
                for name in self.last[node.name]:  # as a module written by hand lets go of them
                    del found[name]
            return found[output]

    return Chain()


def _last_uses(steps: list[Node], output: str) -> dict[str, list[str]]:
    last = {name: node.name for node in steps for name in node.inputs}
    return {
        node.name: [name for name, user in last.items() if user == node.name and name != output]
        for node in steps
    }


def _folded(network: Network) -> list[Node]:
    found: list[Node] = []
    gone: dict[str, str] = {}
    by_name = {node.name: node for node in network.nodes}
    scaled = {
        node.inputs[0]: node
        for node in network.nodes
        if node.kind == "Scale"
        and by_name[node.inputs[0]].kind == "Conv"
        and len(network.users(node.inputs[0])) == 1
    }
    for node in network.nodes:
        if node.name in scaled:
            scale, shift = (scaled[node.name].fields[name] for name in ("scale", "shift"))
            kernel, bias = node.fields["kernel"] * scale, node.fields["bias"] * scale + shift
            node = replace(node, fields=node.fields | {"kernel": kernel, "bias": bias})
            gone[scaled[node.name].name] = node.name
        elif node.name in gone:
            continue
        found.append(replace(node, inputs=[gone.get(name, name) for name in node.inputs]))
    return found


# ------------------------------------------------------------------ layers


def _conv(network: Network, node: Node) -> Layer:
    from torch import nn

    values = node.fields
    kernel = network.kernel(values["kernel"], "oi")
    padding = network.sizes(values["padding"])
    is_even = all(before == after for before, after in padding)
    kind = nn.Conv2d if network.is_flat else nn.Conv3d
    made = kind(
        kernel.shape[1],
        kernel.shape[0],
        kernel.shape[2:],
        stride=tuple(network.sizes(values["stride"])),
        padding=tuple(before if is_even else 0 for before, _ in padding),
        bias=bool(values["bias"].any()),
    )
    made = _with_weights(made, kernel, values["bias"])
    return made if is_even else nn.Sequential(_zeros(network, values["padding"]), made)


def _zeros(network: Network, margins: Any) -> Any:
    """Return a layer of zeros around an image: the last axis comes first."""
    from torch import nn

    kind = nn.ConstantPad2d if network.is_flat else nn.ConstantPad3d
    return kind(tuple(n for ends in reversed(network.sizes(margins)) for n in ends), 0.0)


def _transposed(network: Network, node: Node) -> Layer:
    from torch import nn

    values = node.fields
    kernel = network.kernel(values["kernel"], "io")
    crop = network.sizes(values["crop"])
    if any(before != after for before, after in crop):
        raise ValueError(f"{node.name}: crop {crop} differs before and behind")
    kind = nn.ConvTranspose2d if network.is_flat else nn.ConvTranspose3d
    made = kind(
        kernel.shape[0],
        kernel.shape[1],
        kernel.shape[2:],
        stride=tuple(network.sizes(values["stride"])),
        padding=tuple(before for before, _ in crop),
        bias=bool(values["bias"].any()),
    )
    return _with_weights(made, kernel, values["bias"])


def _with_weights(layer: Any, kernel: np.ndarray, bias: np.ndarray) -> Any:
    import torch

    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(kernel)))
        if layer.bias is not None:
            layer.bias.copy_(torch.from_numpy(np.asarray(bias, np.float32)))
    return layer


def _scale(network: Network, node: Node) -> Layer:
    from torch import nn

    scale, shift = node.fields["scale"], node.fields["shift"]
    kind = nn.BatchNorm2d if network.is_flat else nn.BatchNorm3d
    return _with_weights(kind(len(scale), eps=0.0), scale, shift)  # of mean 0 and variance 1


def _activate(network: Network, node: Node) -> Layer:
    from torch import nn

    kind, alpha = node.fields["activation"]
    made: dict[str, Callable[[], Any]] = {
        "relu": nn.ReLU,
        "leaky": lambda: nn.LeakyReLU(alpha),
        "elu": lambda: nn.ELU(alpha),
        "tanh": nn.Tanh,
        "sigmoid": nn.Sigmoid,
        "softmax": lambda: nn.Softmax(1),
    }
    return made[kind]()


def _pool(network: Network, node: Node) -> Layer:
    from torch import nn

    values = node.fields
    if any(sum(ends) for ends in values["padding"]):
        raise ValueError(f"{node.name}: pooling with padding is not written for PyTorch")
    name = f"{'Max' if values['kind'] == 'max' else 'Avg'}Pool{2 if network.is_flat else 3}d"
    size, stride = (tuple(network.sizes(values[key])) for key in ("size", "stride"))
    return getattr(nn, name)(size, stride)


def _resize(network: Network, node: Node) -> Layer:
    from torch import nn

    kinds = {"nearest": "nearest", "linear": "bilinear" if network.is_flat else "trilinear"}
    factor = tuple(float(n) for n in network.sizes(node.fields["factor"]))
    return nn.Upsample(scale_factor=factor, mode=kinds[node.fields["kind"]])


def _crop(network: Network, node: Node) -> Layer:
    margins = network.sizes(node.fields["margins"])
    inside = (..., *(slice(before, -after or None) for before, after in margins))
    return lambda x: x[inside]


def _pad(network: Network, node: Node) -> Layer:
    return _zeros(network, node.fields["margins"])


def _add(network: Network, node: Node) -> Layer:
    return lambda x, y: x + y


def _concat(network: Network, node: Node) -> Layer:
    import torch

    return lambda *x: torch.cat(x, 1)


LAYERS = {
    "Activate": _activate,
    "Add": _add,
    "Concat": _concat,
    "Conv": _conv,
    "Crop": _crop,
    "Pad": _pad,
    "Pool": _pool,
    "Resize": _resize,
    "Scale": _scale,
    "TransposedConv": _transposed,
}
"""By the names of operations; what is missing is a failure of the peer, which the table shows."""
