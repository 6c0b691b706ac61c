"""The rows of the fault matrix: what each does, and what came of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Outcome:
    """What came of a fault."""

    is_right: bool
    result: str
    waste: str = "-"
    recovery: str = "-"


@dataclass(frozen=True)
class Row:
    """One fault of the matrix."""

    number: int
    fault: str
    how: str
    do: Callable[[], Outcome] | None = None
    kinds: tuple[str, ...] = ()
    """Kinds of `tests.chaos.plan` that are this fault, on a platform."""


def tests(*ids: str) -> Callable[[], Outcome]:
    """Return a row that is what its tests say; they do the fault for real."""
    return lambda: run_tests(ids)


def run_tests(ids: tuple[str, ...]) -> Outcome:
    """Run tests of the project in a process of their own."""
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *ids)
    begun = time.monotonic()
    ended = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True)
    last = ended.stdout.strip().rpartition("\n")[2]
    passed = re.search(r"(\d+) passed", last)
    if ended.returncode or passed is None:
        return Outcome(False, f"`{last}`")
    seconds = time.monotonic() - begun
    return Outcome(True, f"as expected, {passed[1]} tests ({seconds:.0f} s)")


INPUTS = (
    Row(
        22, "missing section", "a file deleted, a section masked or blank",
        tests(
            "tests/storage/sources/test_tiff.py::test_a_file_that_is_gone_costs_its_section",
            "tests/alignment/stages/test_render.py",
            "tests/alignment/test_placement.py::test_a_missing_section_lies_between_its_neighbours",
            "tests/pipeline/test_aligned.py::test_the_blank_section_is_bridged_and_stays_black",
        ),
    ),
    Row(
        23, "wrong shape, type or byte order", "sources rewritten so",
        tests(
            "tests/storage/test_sections.py::test_other_depths_are_refused_with_a_way_out",
            "tests/storage/test_sections.py::test_zarr_arrays_that_are_no_stack",
            "tests/storage/test_sections.py::test_a_section_that_grew_since_the_source_was_opened_is_refused",
            "tests/storage/test_sections.py::test_a_file_that_cannot_be_used_costs_its_section_only",
        ),
    ),
    Row(
        24, "NaN, saturated, all black", "arrays made so",
        tests(
            "tests/alignment/test_matching_faults.py",
            "tests/alignment/test_masks.py::test_a_black_section_is_missing",
            "tests/alignment/test_qc.py::test_a_chunk_with_missing_or_invalid_pixels_is_nan_and_the_others_are_not_touched",
            "tests/alignment/test_coarse.py::test_blank_sections_are_refused",
        ),
    ),
    Row(
        25, "swapped, doubled, mirrored section", "sections of a stack exchanged, copied, flipped",
        tests(
            "tests/pipeline/test_whole_sections.py::test_swapped_and_doubled_sections_are_named",
            "tests/pipeline/test_whole_sections.py::test_a_mirrored_section_is_named_and_drawn_the_right_side_up",
        ),
    ),
    Row(
        26, "folds, cracks", "drawn into sections by the phantom; one real fold",
        tests("tests/alignment/test_folds.py", "tests/alignment/test_tearing.py"),
    ),
    Row(
        27, "absurd configuration", "junk of every type at every setting (Hypothesis)",
        tests("tests/alignment/test_config.py", "tests/plugins/test_params.py"),
    ),
)  # fmt: skip

SECURITY = (
    Row(
        32, "YAML tags, pickles", "files that would run a command if they were trusted",
        tests("tests/chaos/test_hostile.py"),
    ),
    Row(
        33, "foreign URIs, templates and shell in a run's conf", "a corpus of them",
        tests(
            "tests/plugins/test_uris.py", "tests/storage/test_uri.py",
            "tests/plugins/test_operators.py::test_nothing_is_written_before_everything_is_allowed",
        ),
    ),
    Row(
        34, "credentials in logs, errors, links, reports", "a canary key, looked for everywhere",
        tests(
            "tests/plugins/test_secrets.py",
            "tests/storage/test_credentials.py::test_errors_and_stores_never_show_the_key",
            "tests/pipeline/test_canary.py",
        ),
    ),
)  # fmt: skip
