"""Bring a study into docs/training.md: ``python -m tests.benchmarks.training.study NAME FOLDER``.

FOLDER is that of a `petalign study modes` which has ended. ``--write`` puts its page between the
markers of NAME and its pictures, which show curves only, into docs/images.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from alignment.learning.study.plots import ALL
from alignment.learning.study.words import PAGE
from tests.benchmarks.machine import machine
from tests.pages import DOCS, write_table

NAMES = ("ultrasound", "ultrasound-normalised", "membranes")
LIBRARIES = ("tensorflow-cpu", "keras")


def embedded(name: str, folder: Path) -> str:
    """Return the study's page with the machine and its pictures."""
    pictures = [path.name for path in _pictures(folder) if path.name != ALL]
    links = "\n".join(
        f"![{name}: losses of {Path(each).stem} by epochs, samples and seconds]"
        f"(images/{_kept(name, each)})"
        for each in [*pictures, ALL]
    )
    return f"{machine(*LIBRARIES)}\n\n{(folder / PAGE).read_text()}\n{links}"


def _pictures(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.png"))


def _kept(name: str, picture: str) -> str:
    return f"study-{name}-{picture}"


def main() -> None:
    """Print what docs/training.md gets, or write it."""
    parser = argparse.ArgumentParser(
        description=__doc__, prog="python -m tests.benchmarks.training.study"
    )
    parser.add_argument("name", choices=NAMES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--write", action="store_true", help="into docs/training.md")
    given = parser.parse_args()
    text = embedded(given.name, given.folder)
    print(text)
    if given.write:
        for path in _pictures(given.folder):
            shutil.copyfile(path, DOCS / "images" / _kept(given.name, path.name))
        write_table("training.md", f"study-{given.name}", text)


if __name__ == "__main__":
    main()
