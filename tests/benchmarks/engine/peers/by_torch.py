"""PyTorch: a module made of the graph, as it comes, or prepared as well as PyTorch can."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.benchmarks.engine.peers.exchange import Network

VARIANTS = ("eager", "channels last", "compiled")


def prepare(network: Network, variant: str, threads: int) -> tuple[str, Callable[[], Any], Any]:
    """Build the module.

    `variant` is "eager", what one gets without doing anything; "channels last": normalisation
    folded into convolutions, and tensors with the channels last; or "compiled": that, by
    torch.compile with frozen weights.
    """
    import torch

    from tests.benchmarks.engine.peers.torch_module import build

    if variant not in VARIANTS:
        raise ValueError(f"PyTorch is run as one of {VARIANTS}, not {variant!r}")
    torch.set_num_threads(threads)
    x = torch.from_numpy(network.array("input"))
    module = build(network, is_folded=variant != "eager").eval()
    if variant != "eager":
        layout = torch.channels_last if network.is_flat else torch.channels_last_3d
        module, x = module.to(memory_format=layout), x.contiguous(memory_format=layout)
    run = module
    if variant == "compiled":
        import torch._inductor.config

        torch._inductor.config.freezing = True
        run = torch.compile(module)

    def compute() -> Any:
        with torch.no_grad():  # freezing does not know inference mode
            return run(x)

    if variant != "compiled":
        compute = torch.inference_mode()(lambda: run(x))
    return torch.__version__, compute, lambda y: y.contiguous().numpy()
