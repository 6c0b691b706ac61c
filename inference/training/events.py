"""Rows of a log as TensorBoard reads them; that it is not installed does not matter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from inference.keras_on_tensorflow import tf


def write_events(path: Path, rows: Sequence[Mapping[str, str]], names: Sequence[str]) -> None:
    """Write the columns `names` of rows that have ``at`` (time, s) and ``step``.

    The whole file each time, so training that goes on leaves no step twice.
    """
    partial = path.with_name(f".{path.name}")
    with tf.io.TFRecordWriter(str(partial)) as writer:
        writer.write(tf.compat.v1.Event(file_version="brain.Event:2").SerializeToString())
        for row in rows:
            event = tf.compat.v1.Event(wall_time=float(row["at"]), step=int(row["step"]))
            for name in names:
                event.summary.value.add(tag=name, simple_value=float(row[name]))
            writer.write(event.SerializeToString())
    partial.replace(path)
