"""Run a network over an aligned volume on this machine, and say before what it takes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from alignment.blockwise import Client, local_client, run_blocks
from alignment.commands.console import err, out, print_json
from alignment.commands.plan import size
from alignment.commands.summary import shown
from alignment.predicting.figures import GIB
from alignment.predicting.runs import Prepared, foresee, load, prepare
from storage.ledger import read_state
from storage.publish import read_pointer
from storage.store import join


@dataclass(frozen=True)
class Order:
    """What is asked for; places are URIs, since a worker has folders of its own."""

    source: str
    model: str
    volume: str
    config: Mapping[str, Any]
    at: int | str | None
    only_plan: bool = False


def _prepared(order: Order) -> Prepared:
    if order.only_plan:
        return foresee(order.source, order.model, order.config, at=order.at)
    return prepare(order.source, order.model, order.volume, order.config, at=order.at)


@contextmanager
def workers_here(workers: int | None) -> Iterator[Client]:
    """Start worker processes; TensorFlow is imported in them and not in this process."""
    with local_client(workers or os.cpu_count() or 1) as client:
        yield client


def prepare_on(client: Client, order: Order) -> Prepared:
    """Let a worker prepare a prediction; errors as `alignment.predicting.runs.prepare`."""
    (outcome,) = run_blocks(_prepared, [order], client)
    if outcome.value is None:
        raise outcome.error or RuntimeError("a worker gave no prediction and no error")
    return outcome.value


def print_figures(prepared: Prepared, *, as_json: bool = False) -> None:
    """Print what a prediction takes; for people to standard error, before the progress."""
    found, layout = prepared.figures, prepared.layout
    if as_json:
        print_json({"figures": found.as_dict(), "layout": layout.as_dict()})
        return
    nz, ny, nx = layout.shape
    lines = (
        f"{nz:,} x {ny:,} x {nx:,} voxels (z, y, x), {layout.channels} values each",
        f"{found.units:,} shards of {layout.shard}, {found.patches:,} patches of {layout.patch}; "
        f"the network sees {found.overhead:.2f} voxels for each that is kept",
        f"reads {size(found.bytes_read)}, writes {size(found.bytes_written)} before compression",
        f"a block takes about {size(found.block_bytes)}, a worker "
        f"{found.worker_bytes / GIB:.2f} GiB",
        f"computed by {layout.by}",
    )
    for line in lines:
        err.print(line, markup=False)


def print_predicted(run_uri: str, *, as_json: bool) -> None:
    """Print where a finished prediction is."""
    run, state = load(run_uri), read_state(run_uri, "predict")
    pointer = read_pointer(run.volume_uri)
    epoch = pointer.epoch if pointer else None
    if as_json:
        image = join(run_uri, "prediction")
        print_json(
            {"volume": run.volume_uri, "run": run_uri, "image": image, "epoch": epoch}
            | {"state": asdict(state)}
        )
        return
    taken = f", {state.blocks_reused} as in the version before" if state.blocks_reused else ""
    out.print(f"prediction      {shown(run.volume_uri)} (version {epoch}{taken})", markup=False)
    out.print(f"took            {state.seconds:.1f} s, {state.busy_s:.1f} CPU-s", markup=False)
