"""Ship what was trained: ``python -m tests.models.ship FOLDER``, the folder of `train`.

Copies the best network beside the code and writes its model card; run the tables next, with it.
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

from inference.model_file import decode, digest
from inference.shipped import SHIPPED
from inference.training_files import LOG, MODEL
from tests.models.train import RECIPE

CARD = SHIPPED.with_suffix(".md")
CARD_FORM = Path(__file__).parent / "card.md"


def main() -> None:
    """Copy the network and write its card."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder / "training"
    content = (folder / MODEL).read_bytes()
    SHIPPED.parent.mkdir(exist_ok=True)
    CARD.write_text(card(folder, content), encoding="utf-8")
    SHIPPED.write_bytes(content)
    print(f"wrote {SHIPPED} and {CARD}")


def card(folder: Path, content: bytes) -> str:
    """Return the model card of a network, from the log of its training."""
    network = decode(content, name=MODEL)
    with (folder / LOG).open(newline="") as file:
        rows = list(csv.DictReader(file))
    best = next(row for row in rows if row["step"] == rows[-1]["best_step"])
    pairs = json.loads((folder / "pairs.json").read_text())
    weights = sum(value.size for value in network.weights.values())
    seen = "\n".join(
        f"| {Path(stack['uri']).stem} | {' x '.join(map(str, stack['shape']))} |"
        for stack in pairs["about"]["stacks"]
    )
    spent_s = float(rows[-1]["at"]) - float(rows[0]["at"])
    return CARD_FORM.read_text(encoding="utf-8").format(
        widths="-".join(map(str, network.config.widths)),
        weights=f"{weights:,}",
        sha256=digest(content),
        recipe=RECIPE.name,
        seed=pairs["about"]["training"]["seed"],
        steps=f"{int(rows[-1]['step']):,}",
        best_step=f"{int(best['step']):,}",
        minutes=f"{spent_s / 60:.0f}",
        r_delta=f"{float(best['r_delta']):.3f}",
        false=f"{float(best['false']):.1%}",
        raw=f"{float(best['raw']):.3f}",
        raw_false=f"{float(best['raw_false']):.1%}",
        pairs=f"{len(pairs['train']):,}",
        held_out=len(pairs["held_out"]),
        stacks=seen,
    )


if __name__ == "__main__":
    main()
