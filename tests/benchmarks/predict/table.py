"""What a prediction takes, as planned and as it was: memory of a worker, patches, bytes, time.

``python -m tests.benchmarks.predict.table`` runs a small residual network over synthetic volumes,
each time in a worker process of its own. ``--write`` puts the table into docs/prediction.md.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignment.blockwise import local_client
from alignment.predicting.driver import run_prediction
from alignment.predicting.figures import GIB
from alignment.predicting.runs import Prepared, prepare
from storage.ledger import StageState, read_state
from tests.pages import write_table
from tests.published import publish_aligned, texture

PAGE, TABLE = "prediction.md", "planned-and-measured"
SHAPE = (32, 256, 256)


@dataclass(frozen=True)
class Case:
    """One prediction."""

    filters: int
    patch: tuple[int, int, int]
    batch: int = 1
    channels: int = 1


CASES = (
    Case(8, (24, 96, 96)),
    Case(8, (40, 160, 160)),
    Case(16, (40, 160, 160)),
    Case(8, (24, 96, 96), batch=4),
    Case(8, (24, 96, 96), channels=12),
)


def write_model(path: Path, case: Case) -> None:
    """Save two residual modules around one level of half the resolution, with random weights."""
    import keras

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


def measure(case: Case, folder: Path) -> tuple[Prepared, StageState]:
    """Return what was planned, and what the ledger says afterwards."""
    volume = (folder / "aligned").as_uri()
    if not (folder / "aligned").exists():
        publish_aligned(volume, texture(SHAPE))
    model = folder / "model.keras"
    write_model(model, case)
    settings = {
        "patches": {"patch_px": case.patch, "margin_px": (4, 16, 16), "batch": case.batch},
        "volume": {"shard": [32, 128, 128], "chunk": [32, 64, 64]},
    }
    target = (folder / f"predicted{CASES.index(case)}").as_uri()
    prepared = prepare(volume, model.as_uri(), target, settings)
    with local_client(1, memory_limit="12GiB") as client:
        run_prediction(prepared.run_uri, client)
    return prepared, read_state(prepared.run_uri, "predict")


def row(case: Case, prepared: Prepared, state: StageState) -> str:
    """Return a line of the table."""
    found = prepared.figures
    speed = found.voxels / state.busy_s / 1e6
    cells = (
        case.filters, " x ".join(map(str, case.patch)), case.batch, case.channels,
        f"{found.patches:,}", f"{found.overhead:.2f}",
        f"{found.worker_bytes / GIB:.2f}", f"{state.peak_bytes / GIB:.2f}",
        f"{found.bytes_written / 1e6:.1f}", f"{state.bytes_written / 1e6:.1f}", f"{speed:.2f}",
    )  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


HEAD = """\
| filters | patch | batch | channels | patches | voxels seen for one kept | worker GiB, planned \
| measured | written MB, planned | measured | Mvoxel per CPU-s |
|--:|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"""


def main() -> None:
    """Measure all cases; print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    lines = [HEAD]
    is_kept = parser.parse_args().write
    with tempfile.TemporaryDirectory() as folder:
        for case in CASES:
            lines.append(row(case, *measure(case, Path(folder))))
            print(lines[-1], flush=True)
    if is_kept:
        write_table(PAGE, TABLE, "\n".join(lines))


if __name__ == "__main__":
    main()
