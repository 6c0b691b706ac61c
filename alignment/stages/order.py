"""The order of the stages: the story of a section on its way into the aligned volume."""

ORDER = (
    "ingest",
    "masks",
    "features",
    "coarse",
    "match",
    "filter",
    "relax",
    "render",
    "pyramid",
    "qc",
    "publish",
)

WHOLE = ("relax", "publish")
"""Stages that begin with something about the whole stack: they are not mapped over slabs."""
