"""What a prediction takes, as planned and as it was: memory of a worker, bytes, processor time.

``python -m tests.benchmarks.predict.table`` runs a small residual network over synthetic volumes,
each time in a worker process of its own. ``--write`` puts the table into docs/prediction.md;
``--by engine`` measures the rows of the engine only, and leaves the others as they stand there.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alignment.blockwise import local_client
from alignment.predicting.driver import run_prediction
from alignment.predicting.figures import GIB
from alignment.predicting.runs import Prepared, prepare
from inference.backends.files import load_network, on_engine
from storage.ledger import StageState, read_state
from tests.pages import read_table, write_table
from tests.published import publish_aligned, texture

PAGE, TABLE = "prediction.md", "planned-and-measured"
SHAPE = (32, 256, 256)


@dataclass(frozen=True)
class Case:
    """One prediction."""

    filters: int | str
    """Of the small network; or the widths of the levels of the residual U-Net."""
    patch: tuple[int, int, int]
    batch: int = 1
    channels: int = 1
    backend: str = "keras"
    margin: tuple[int, int, int] = (4, 16, 16)


CASES = (
    Case(8, (24, 96, 96)),
    Case(8, (40, 160, 160)),
    Case(16, (40, 160, 160)),
    Case(8, (24, 96, 96), batch=4),
    Case(8, (24, 96, 96), channels=12),
    Case(8, (24, 96, 96), backend="engine"),
    Case(8, (40, 160, 160), backend="engine"),
    Case(16, (40, 160, 160), backend="engine"),
    Case(8, (24, 96, 96), batch=4, backend="engine"),
    Case("28-36-48-64-80", (18, 192, 192), channels=12, backend="engine", margin=(3, 32, 32)),
)


def write_model(path: Path, case: Case) -> None:
    """Save two residual modules around one level of half the resolution, with random weights."""
    import keras

    if isinstance(case.filters, str):
        from tests.engine_networks import rsunet

        rsunet((*case.patch, 1), [int(n) for n in case.filters.split("-")]).save(path)
        return
    layers = keras.layers

    def conv(x: Any, n: int) -> Any:
        return layers.Conv3D(n, 3, padding="same", activation="elu")(x)

    def module(x: Any, n: int) -> Any:
        first = conv(x, n)
        return layers.Add()([first, conv(conv(first, n), n)])

    keras.utils.set_random_seed(1)
    image = keras.Input((None, None, None, 1))
    wide = module(image, case.filters)
    deep = module(layers.MaxPooling3D((1, 2, 2))(wide), 2 * case.filters)
    up = layers.Conv3DTranspose(case.filters, (1, 2, 2), strides=(1, 2, 2))(deep)
    joined = module(layers.Add()([wide, up]), case.filters)
    answer = layers.Conv3D(case.channels, 1, activation="sigmoid")(joined)
    keras.Model(image, answer).save(path)


@dataclass(frozen=True)
class Measured:
    """What was planned of a prediction, what the ledger says, and the network alone."""

    prepared: Prepared
    state: StageState
    bare_s: float
    """Processor time of the network for as many patches, called one after the other."""


def measure(case: Case, folder: Path) -> Measured:
    """Predict twice, so that what counts does not hold the import of TensorFlow."""
    sources = {"warm": (32, 96, 96), "aligned": SHAPE}
    for name, shape in sources.items():
        if not (folder / name).exists():
            publish_aligned((folder / name).as_uri(), texture(shape))
    model = folder / "model.keras"
    write_model(model, case)
    settings = {
        "patches": {"patch_px": case.patch, "margin_px": case.margin, "batch": case.batch},
        "network": {"backend": case.backend},
        "volume": {"shard": [32, 128, 128], "chunk": [32, 64, 64]},
    }
    with local_client(1, memory_limit="12GiB") as client:
        for name in sources:
            target = (folder / f"{name}{CASES.index(case)}").as_uri()
            prepared = prepare((folder / name).as_uri(), model.as_uri(), target, settings)
            run_prediction(prepared.run_uri, client)
    state = read_state(prepared.run_uri, "predict")
    return Measured(prepared, state, bare(case, model, prepared.figures.patches))


def bare(case: Case, model: Path, patches: int) -> float:
    """Return the processor time of the network for so many patches, by its median."""
    data, is_engine = model.read_bytes(), case.backend == "engine"
    network = on_engine(data, shrink=case.margin) if is_engine else load_network(data)
    batch = np.random.default_rng(0).random((case.batch, *case.patch, 1), np.float32)
    network(batch)
    times = []
    for _ in range(5):
        start = time.process_time()
        network(batch)
        times.append(time.process_time() - start)
    return float(np.median(times)) * patches / case.batch


def row(case: Case, measured: Measured) -> str:
    """Return a line of the table."""
    found, state = measured.prepared.figures, measured.state
    cells = (
        case.backend, case.filters, " x ".join(map(str, case.patch)), case.batch, case.channels,
        f"{found.patches:,}", f"{found.overhead:.2f}",
        f"{found.worker_bytes / GIB:.2f}", f"{state.peak_bytes / GIB:.2f}",
        f"{found.bytes_written / 1e6:.1f}", f"{state.bytes_written / 1e6:.1f}",
        f"{state.busy_s:.2f}", f"{measured.bare_s:.2f}",
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


HEAD = """\
| by | filters | patch | batch | channels | patches | voxels seen for one kept \
| worker GiB, planned | measured | written MB, planned | measured | CPU-s of all shards \
| of the network alone |
|---|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"""


def main() -> None:
    """Measure all cases; print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--by", choices=["keras", "engine"])
    asked = parser.parse_args()
    cases = [case for case in CASES if asked.by in (None, case.backend)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for case in cases:
            rows.append(row(case, measure(case, Path(folder))))
            print(rows[-1], flush=True)
    if asked.write:
        others = [line for line in read_table(PAGE, TABLE) if line.startswith("| ")][1:]
        kept = [line for line in others if asked.by and not line.startswith(f"| {asked.by} |")]
        # Keras comes first, as in CASES.
        write_table(PAGE, TABLE, "\n".join([HEAD, *sorted([*kept, *rows], key=_place)]))


def _place(line: str) -> bool:
    return line.startswith("| engine |")


if __name__ == "__main__":
    main()
