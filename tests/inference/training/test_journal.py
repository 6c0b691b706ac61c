"""The published grammar: written, and read as both sources spell it."""

import csv
import io

import pytest

from inference.training.journal import Entry, Journal, line_of, parse, parse_line, to_csv

STUDY = """\
2020-02-01 11:02:03,456 Verification error= 5.1%, loss= 0.2276
2020-02-01 11:02:05,456 Iter 1980, Minibatch Loss= 0.2344, Training Accuracy= 0.9389, \
Minibatch error= 6.9%
something else that a program printed
2020-02-01 11:02:45,456 Epoch 99, Average loss= 0.1443, Learning rate= 0.0010
"""
"""The lines that are printed in the study; one contradicts itself: 100 (1 - 0.9389) is 6.1."""


def test_the_studys_lines_are_read_as_they_are_also_where_they_contradict_themselves():
    assert list(parse(STUDY.splitlines())) == [
        Entry("verification", loss=0.2276, error_percent=5.1),
        Entry("iteration", 1980, 0.2344, 0.9389, 6.9),
        Entry("epoch", 99, 0.1443, learning_rate=0.001),
    ]


def test_upstreams_colons_are_read_alike():
    line = "2017-03-01 10:00:00,000 Epoch 7, Average loss: 0.5123, learning rate: 0.1900"
    assert parse_line(line) == Entry("epoch", 7, 0.5123, learning_rate=0.19)
    line = "Iter 4, Minibatch Loss: 1.5e-3, Training Accuracy: 1.0000, Minibatch error: 0.0%"
    assert parse_line(line) == Entry("iteration", 4, 0.0015, 1.0, 0.0)


@pytest.mark.parametrize(
    "entry",
    [
        Entry("iteration", 12, 0.25, 0.75, 25.0),
        Entry("epoch", 3, -0.125, learning_rate=0.001),
        Entry("verification", loss=0.5, error_percent=3.1),
    ],
)
def test_what_is_written_is_read(entry):
    assert parse_line(line_of(entry)) == entry


def test_a_journal_goes_on_where_it_was_cut(tmp_path):
    journal = Journal(tmp_path / "train.log")
    journal.cut(0)
    entries = [Entry("iteration", n, 0.5, 0.5, 50.0) for n in range(4)]
    for entry in entries[:2]:
        journal.write(entry)
    size = journal.size
    journal.write(Entry("iteration", 99, 9.0, 0.0, 100.0))
    journal.cut(size)
    for entry in entries[2:]:
        journal.write(entry)
    assert list(parse(journal.path.read_text().splitlines())) == entries


def test_the_table_has_a_row_a_line():
    rows = list(csv.DictReader(io.StringIO(to_csv(parse(STUDY.splitlines())))))
    assert [row["kind"] for row in rows] == ["verification", "iteration", "epoch"]
    assert rows[1] == {
        "kind": "iteration", "number": "1980", "loss": "0.2344", "accuracy": "0.9389",
        "error_percent": "6.9", "learning_rate": "",
    }  # fmt: skip
