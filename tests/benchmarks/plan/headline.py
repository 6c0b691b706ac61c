"""The plan of 7,600 x 187,000 x 92,000 px: ``python -m tests.benchmarks.plan.headline``.

``--write`` puts what `petalign plan` prints into docs/scale.md.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

from typer.testing import CliRunner

from alignment.cli import app
from tests.pages import write_table

SETTINGS = Path(__file__).with_name("large.yaml")
SHAPE = ("--shape", "7600,187000,92000", "--resolution", "30,4,4", "--workers", "1600")
PLANS = {
    "plan-as-shipped": SHAPE,
    "plan-large": (*SHAPE, "--config", str(SETTINGS), "--worker-memory-gib", "64"),
}


def main() -> None:
    """Print the plans, or write them into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    # What this machine was calibrated to is no part of a page.
    os.environ["PETALIGN_HOME"] = os.devnull
    for name, words in PLANS.items():
        begun = time.process_time()
        result = CliRunner().invoke(app, ["plan", *words])
        print(f"{name}: {time.process_time() - begun:.1f} s", result.output, sep="\n")
        shown = " ".join(words).replace(f"{SETTINGS.parent}/", "")
        text = f"```text\n$ petalign plan {shown}\n{result.output.rstrip()}\n```"
        if arguments.write:
            write_table("scale.md", name, text)
    if arguments.write:
        write_table("scale.md", "large-settings", f"```yaml\n{SETTINGS.read_text().rstrip()}\n```")


if __name__ == "__main__":
    main()
