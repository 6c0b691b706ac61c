"""Print the tables of the NCC layer and NCCNet: ``python -m tests.benchmarks.ncc_layer.table``.

``--rounds N`` sets the number of rounds, ``--side N`` that of the section, px; ``--write`` puts the
tables between their markers in docs/performance.md.
"""

from __future__ import annotations

import argparse
from importlib.util import find_spec

from inference.config import NCCNetConfig
from inference.nccnet import halo_px
from tests.benchmarks.machine import machine
from tests.benchmarks.ncc_layer.contests import (
    PUBLISHED_PX,
    TEMPLATES_PX,
    WIDTHS,
    WINDOW_PX,
    crossover_px,
    layer_contest,
    network_contest,
)
from tests.benchmarks.rounds import Result, hold
from tests.pages import write_table


def main() -> None:
    """Hold the contests and print, or write, their tables as markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    _use_one_thread()
    libraries = [
        "numpy",
        "tensorflow-cpu",
        "keras",
        *(["openvino"] if find_spec("openvino") else []),
    ]
    text = [machine(*libraries) + " One thread.\n"]
    text += [layer_table(TEMPLATES_PX, WINDOW_PX, arguments.rounds)]
    text += [_published(arguments.rounds), network_table(arguments.side, arguments.rounds)]
    print("\n".join(text))
    if arguments.write:
        write_table("performance.md", "bench-ncc", "\n".join(text))


def layer_table(templates_px: tuple[int, ...], window_px: int, rounds: int) -> str:
    """Return the two ways side by side, with and without gradients, and where they cross."""
    found: dict[bool, dict[int, list[Result]]] = {False: {}, True: {}}
    for gradient, results in found.items():
        for side in templates_px:
            held = layer_contest(window_px, side, batch=8, gradient=gradient)
            results[side] = hold(held, rounds)
    lines = [
        f"#### Correlograms in windows of {window_px} px, batch 8, one channel; CPU-ms each",
        "",
        "| template, px | spatial | FFT | times cheaper | with gradients: spatial | FFT "
        "| times cheaper |",
        "|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for side in templates_px:
        cells = [_cells(found[gradient][side]) for gradient in (False, True)]
        lines.append(f"| {side} | {' | '.join(cells)} |")
    forward, both = (crossover_px(found[gradient]) for gradient in (False, True))
    lines += [
        "",
        f"FFT is the cheaper from templates of {_side(forward)} on, with gradients from "
        f"{_side(both)} on.",
    ]
    return "\n".join(lines) + "\n"


def _published(rounds: int) -> str:
    """Return the published size; with gradients, the spatial way takes minutes there."""
    window, template = PUBLISHED_PX
    results = hold(layer_contest(window, template, batch=1, gradient=False), min(rounds, 3))
    spatial, fft = (1e3 / result.per_cpu_s for result in results)
    return (
        f"At the published {template} px in {window} px, a correlogram without gradients takes "
        f"{spatial:,.0f} CPU-ms in the spatial way and {fft:.1f} by FFT.\n"
    )


def network_table(side_px: int, rounds: int) -> str:
    """Return the throughput of networks of several widths."""
    lines = [
        f"#### NCCNet on a section of {side_px} x {side_px} px",
        "",
        "| widths | halo, px | way | Mpx per CPU-s | Mpx/s |",
        "|---|---|---|--:|--:|",
    ]
    for widths in WIDTHS:
        before, after = halo_px(NCCNetConfig(widths=widths))
        lines += [
            f"| {'-'.join(map(str, widths))} | {before}, {after} | {r.way} | {r.per_cpu_s:.2f} "
            f"| {r.per_s:.2f} |"
            for r in hold(network_contest(widths, side_px), min(rounds, 3))
        ]
    return "\n".join(lines) + "\n"


def _cells(results: list[Result]) -> str:
    spatial, fft = results
    return f"{1e3 / spatial.per_cpu_s:.2f} | {1e3 / fft.per_cpu_s:.2f} | {fft.cpu_ratio:.2f}"


def _side(side_px: int | None) -> str:
    return "none of these sizes" if side_px is None else f"{side_px} px"


def _use_one_thread() -> None:
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


if __name__ == "__main__":
    main()
