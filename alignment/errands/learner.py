"""The program that trains: ``python -m alignment.errands.learner ORDER OUTCOME``, two JSON files.

It does what `petalign train nccnet` does, says the same, and leaves its error with the kind that
decides whether a retry can help.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import yaml

from alignment.commands.train import train_at
from alignment.errands.drive import kind_of


def main(order: Path, outcome: Path) -> int:
    """Train as the order says; return the exit status."""
    told = json.loads(order.read_text())
    config = order.with_suffix(".yaml")
    config.write_text(yaml.safe_dump(told["config"]))
    try:
        train_at([told["stack"]], told["folder"], config, None, quiet=False)
    except KeyboardInterrupt:
        return 1
    except Exception as error:
        outcome.write_text(json.dumps({"error": str(error), "kind": kind_of(error)}))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
