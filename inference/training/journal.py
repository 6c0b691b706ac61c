"""Lines about a training in the grammar of the published study, and back to a table.

A line of each kind, after its time; upstream code puts a colon where the study has "="::

    Iter 1980, Minibatch Loss= 0.2344, Training Accuracy= 0.9389, Minibatch error= 6.1%
    Epoch 99, Average loss= 0.1443, Learning rate= 0.0010
    Verification error= 5.1%, loss= 0.2276
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NamedTuple

Kind = Literal["iteration", "epoch", "verification"]

_NUMBER = r"\s*([-+]?\d*\.?\d+(?:[eE][-+]?\d+)?)"
_IS = r"\s*[=:]" + _NUMBER
_KINDS: dict[Kind, re.Pattern[str]] = {
    "iteration": re.compile(
        rf"Iter\s+(\d+),\s*Minibatch\s+Loss{_IS},\s*Training\s+Accuracy{_IS},"
        rf"\s*Minibatch\s+error{_IS}\s*%",
        re.IGNORECASE,
    ),
    "epoch": re.compile(
        rf"Epoch\s+(\d+),\s*Average\s+loss{_IS},\s*Learning\s+rate{_IS}", re.IGNORECASE
    ),
    "verification": re.compile(rf"Verification\s+error{_IS}\s*%,\s*loss{_IS}", re.IGNORECASE),
}


class Entry(NamedTuple):
    """What a line says; what its kind does not say is None."""

    kind: Kind
    number: int | None = None
    """Of the iteration or epoch."""
    loss: float | None = None
    accuracy: float | None = None
    """Share of pixels whose class is right."""
    error_percent: float | None = None
    """100 times what is missing of the accuracy; as the line says it, also where that is wrong."""
    learning_rate: float | None = None


def line_of(entry: Entry) -> str:
    """Return an entry as a line, without its time.

    >>> line_of(Entry("iteration", 1980, 0.2344, 0.9389, 6.11))
    'Iter 1980, Minibatch Loss= 0.2344, Training Accuracy= 0.9389, Minibatch error= 6.1%'
    """
    match entry.kind:
        case "iteration":
            return (
                f"Iter {entry.number}, Minibatch Loss= {entry.loss:.4f}, Training Accuracy= "
                f"{entry.accuracy:.4f}, Minibatch error= {entry.error_percent:.1f}%"
            )
        case "epoch":
            return (
                f"Epoch {entry.number}, Average loss= {entry.loss:.4f}, Learning rate= "
                f"{entry.learning_rate:.4f}"
            )
        case "verification":
            return f"Verification error= {entry.error_percent:.1f}%, loss= {entry.loss:.4f}"


def parse_line(line: str) -> Entry | None:
    """Return what a line says, None if it is of no kind.

    >>> parse_line("2020-01-01 10:00:00,123 Epoch 99, Average loss: 0.1443, learning rate: 0.0010")
    Entry(kind='epoch', number=99, loss=0.1443, accuracy=None, error_percent=None, \
learning_rate=0.001)
    """
    for kind, pattern in _KINDS.items():
        found = pattern.search(line)
        if found is None:
            continue
        match kind, found.groups():
            case "iteration", (number, loss, accuracy, error):
                return Entry(kind, int(number), float(loss), float(accuracy), float(error))
            case "epoch", (number, loss, rate):
                return Entry(kind, int(number), float(loss), learning_rate=float(rate))
            case "verification", (error, loss):
                return Entry(kind, loss=float(loss), error_percent=float(error))
    return None


def parse(lines: Iterable[str]) -> Iterator[Entry]:
    """Yield what lines say; others are passed over."""
    for line in lines:
        entry = parse_line(line)
        if entry is not None:
            yield entry


def to_csv(entries: Iterable[Entry]) -> str:
    """Return entries as a table; a verification stands after the epoch that it follows.

    >>> to_csv([Entry("verification", loss=0.5, error_percent=7.0)]).splitlines()
    ['kind,number,loss,accuracy,error_percent,learning_rate', 'verification,,0.5,,7.0,']
    """
    stream = io.StringIO()
    table = csv.writer(stream, lineterminator="\n")
    table.writerow(Entry._fields)
    table.writerows(["" if value is None else value for value in entry] for entry in entries)
    return stream.getvalue()


class Journal:
    """A file of such lines, which a training that goes on continues where its checkpoint was."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def size(self) -> int:
        """Bytes that are written."""
        return self.path.stat().st_size if self.path.exists() else 0

    def cut(self, size: int) -> None:
        """Take off what was written after a checkpoint."""
        self.path.touch()
        with self.path.open("r+b") as file:
            file.truncate(min(size, self.size))

    def write(self, entry: Entry) -> None:
        """Add a line with its time."""
        now = datetime.now(UTC)
        stamp = f"{now:%Y-%m-%d %H:%M:%S},{now.microsecond // 1000:03d}"
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{stamp} {line_of(entry)}\n")
