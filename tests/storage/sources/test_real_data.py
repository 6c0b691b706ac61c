"""Every set of real data is read, or says in one line why not."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import tifffile

from storage.errors import SourceError
from storage.sections import open_source

DATA = Path(os.environ.get("ALIGN_TEST_DATA", "../shared/data")).resolve()

SHAPES = {
    "aligntk_z00-07/raw.tif": (8, 1024, 1024),
    "aligntk_z00-07/reference_aligned_raw.tif": (8, 1105, 1159),
    "cremi_im015_crack": (1, 1741, 1912),
    "cremi_im015_crack/section_raw.tif": (1, 1741, 1912),
    "damaged_DOLW7": (3, 1000, 1000),
    "damaged_DOLW7/fixed_raw.tif": (1, 1000, 1000),
    "damaged_DOLW7/moving_defect_mask.tif": (1, 1000, 1000),
    "damaged_DOLW7/moving_raw.tif": (1, 1000, 1000),
    "fib_medulla_ts2/raw.tif": (250, 250, 250),
    "isbi2012_test/raw.tif": (30, 512, 512),
    "nornir_tiles/raw.tif": (3, 1020, 1020),
    "pinky_sample1/raw.tif": (18, 192, 192),
    "render_tiles_a/col0060_row0140_raw.tif": (1, 1080, 1280),
    "render_tiles_a/col0060_row0141_raw.tif": (1, 1080, 1280),
    "render_tiles_a/col0061_row0140_raw.tif": (1, 1080, 1280),
    "render_tiles_a/col0061_row0141_raw.tif": (1, 1080, 1280),
    "render_tiles_a/mask.tif": (1, 1080, 1280),
    "ultrasound_usgra/images": (204, 632, 761),
    "ultrasound_usgra/masks": (204, 632, 761),
    "vnc_stack1/labels.tif": (20, 1024, 1024),
    "vnc_stack1/membranes.tif": (20, 1024, 1024),
    "vnc_stack1/mitochondria.tif": (20, 1024, 1024),
    "vnc_stack1/raw.tif": (20, 1024, 1024),
    "vnc_stack1/synapses.tif": (20, 1024, 1024),
}

STACKS = "holds [0-9]+ pages; expected one section per file. Give the file itself"
UNKNOWN = "is a file of an unknown kind. Expected a multi-page TIFF"

REASONS = {
    "aligntk_z00-07": STACKS,
    "aligntk_z00-07/reference_elastic_pairs.csv": UNKNOWN,
    "aligntk_z00-07/reference_rigid_pairs.csv": UNKNOWN,
    "cremi_im015_crack/crop_A.csv": UNKNOWN,
    "cremi_im015_crack/crop_B.csv": UNKNOWN,
    "cremi_im015_crack/crop_C.csv": UNKNOWN,
    "cremi_im015_crack/translations_A.csv": UNKNOWN,
    "cremi_im015_crack/translations_B.csv": UNKNOWN,
    "cremi_im015_crack/translations_C.csv": UNKNOWN,
    "fib_medulla_ts2": STACKS,
    "fib_medulla_ts2/neuron_ids.tif": "has uint16 pixels; expected uint8. Convert the whole stack",
    "isbi2012_test": STACKS,
    "nornir_tiles": STACKS,
    "pinky_sample1": STACKS,
    "render_tiles_a": "stitch them first: petalign stitch",
    "render_tiles_a/tilespecs.json": UNKNOWN,
    "ultrasound_usgra": "holds no sections; found LICENSE, images, masks",
    "ultrasound_usgra/LICENSE": UNKNOWN,
    "vnc_stack1": STACKS,
}


def _path(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"the set {name.split('/')[0]} is not below {DATA}; set ALIGN_TEST_DATA")
    return path


def test_nothing_is_left_out():
    _path("README.md")
    found = {p for folder in DATA.iterdir() if folder.is_dir() for p in (folder, *folder.iterdir())}
    assert {p.relative_to(DATA).as_posix() for p in found} == {*SHAPES, *REASONS}


@pytest.mark.parametrize("name", SHAPES)
def test_a_set_is_read(name):
    path = _path(name)
    source = open_source(path)
    nz, ny, _ = SHAPES[name]
    assert source.shape == SHAPES[name]
    for z in {0, nz // 2, nz - 1}:
        rows = source.read_rows(z, ny // 3, ny // 2)
        if path.suffix == ".tif":
            np.testing.assert_array_equal(rows, tifffile.imread(path, key=z)[ny // 3 : ny // 2])
        else:
            assert rows.any()


@pytest.mark.parametrize("name", REASONS)
def test_a_set_is_refused_in_one_line(name):
    with pytest.raises(SourceError, match=REASONS[name]) as caught:
        open_source(_path(name))
    assert "\n" not in str(caught.value)
