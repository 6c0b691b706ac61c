"""Train the network that ships: ``python -m tests.models.train FOLDER``.

The same weights come of it wherever TensorFlow computes the same: it is told to use one thread. A
second call goes on where the first was ended.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

THREADS = {"TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1"}
RECIPE = Path(__file__).parent / "nccnet-small.yaml"


def main() -> None:
    """Make the stacks and train."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    os.environ.update(THREADS)  # before TensorFlow is imported
    from alignment.commands.train import print_trained, train_at
    from tests.models.stacks import write_stacks

    paths = write_stacks(folder / "stacks", print)
    place = str(folder / "training")
    trained = train_at([str(path) for path in paths], place, RECIPE, None, quiet=False)
    print_trained(place, trained, as_json=False)


if __name__ == "__main__":
    main()
