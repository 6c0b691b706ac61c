"""Chunk correlations shard by shard are those of whole sections."""

import cv2
import numpy as np
import pytest

from alignment import qc
from alignment.runs import load
from alignment.stages import correlations, inputs, render
from storage.grid import Box
from storage.volume import open_array
from tests.relaxed_run import do_stage, relaxed_run

NZ, NY, NX = 7, 1340, 1010
SPACING = 64
CHUNK_PX = 50
GONE = 3


def section(z):
    """Tissue that changes slowly, with areas without data that run from shard to shard."""
    common, own = (
        cv2.GaussianBlur(np.random.default_rng(seed).normal(size=(NY, NX)), (0, 0), 3)
        for seed in (0, z + 1)
    )
    image = np.clip((common + own) * 300 + 120, 1, 255).astype(np.uint8)
    image[505:520:2, 100:900:7] = 0  # specks, which are dark tissue
    image[300 + z, 400:800] = 0  # a thread of 400 px from shard to shard
    image[600:1300, 512 + z] = 0  # and one along their border
    image[-90:, -300:] = 0
    return image


@pytest.fixture(scope="module", autouse=True)
def one_shard_a_unit():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(correlations, "LEAST_SIDE_PX", 1)
        yield


@pytest.fixture(scope="module")
def run_uri(tmp_path_factory):
    layout = {"aligned_shard": [3, 512, 512], "aligned_chunk": [3, 64, 64]}
    run_uri = relaxed_run(
        tmp_path_factory.mktemp("compared"),
        [lambda z=z: section(z) for z in range(NZ)],
        (NY, NX),
        fields=np.zeros((NZ, 2, NY // SPACING + 2, NX // SPACING + 2), np.float32),
        matrices=np.tile(np.array([[1.0, 0, 0], [0, 1, 0]]), (NZ, 1, 1)),
        canvas=(NY, NX),
        missing=(GONE,),
        config={
            "volume": layout,
            "relax": {"node_spacing_px": SPACING},
            "render": {"interpolation": "linear"},  # keeps a thread of zeros
            "qc": {"chunk_px": CHUNK_PX},
        },
    )
    do_stage(run_uri, render)
    phase = correlations.phase(load(run_uri))
    for unit in phase.units:
        phase.work(unit, run_uri=run_uri)
    return run_uri


@pytest.mark.parametrize("name", ["before", "after"])
def test_no_shard_is_seen_in_the_correlations(run_uri, name):
    run = load(run_uri)
    see = {"before": correlations.unaligned, "after": correlations.aligned}[name]
    canvas = inputs.coarse(run_uri).canvas
    found = dict(correlations.rows(run, name))
    for z in range(NZ):
        if z in (0, GONE):
            assert np.isnan(found[z]).all()
            continue
        fixed_z = z - 2 if z - 1 == GONE else z - 1
        moving, fixed = (see(run, (k, k + 1), (0, 0), canvas)[0] for k in (z, fixed_z))
        whole = qc.chunk_correlation(
            moving, fixed, None, CHUNK_PX, smoothing_px=run.config.qc.smoothing_px
        )
        assert np.isnan(whole).any()
        assert np.isfinite(whole).any()
        np.testing.assert_allclose(found[z], whole, atol=2e-6)


def test_a_unit_is_what_one_shard_shows(run_uri):
    array = open_array(run_uri, "qc/after")
    assert array.shape == (NZ, NY // CHUNK_PX, NX // CHUNK_PX)
    assert array.chunks == (3, 512 // CHUNK_PX, 512 // CHUNK_PX)


def test_a_unit_names_the_shards_and_sections_that_it_sees(run_uri):
    last = Box((6, 20, 0), (7, 26, 10), 0)
    read = correlations.reads_neighbours(last, run_uri=run_uri)
    told = {ref.unit for ref in read if not isinstance(ref, str)}
    assert told == {
        "z000005", "z000006",
        *(f"m0_z{z}_y{y}_x{x}" for z in (3, 6) for y in (512, 1024) for x in (0, 512)),
    }  # fmt: skip
    assert "pairs [(6, 1)]" in read
