"""A network over the phantom that all stages aligned, on processes of which one is killed."""

import os
import signal

import numpy as np
import pytest

from alignment.blockwise import local_client
from alignment.predicting.driver import run_prediction
from alignment.predicting.runs import prepare
from storage import open_aligned, open_prediction
from storage.commit import manifest
from storage.commit.verify import verify_volume
from storage.store import join, replace_bytes
from tests.networks import model_file

pytestmark = pytest.mark.slow

SETTINGS = {
    "patches": {"patch_px": [10, 70, 70], "margin_px": [3, 3, 3], "join": "blend"},
    "volume": {"shard": [4, 128, 128], "chunk": [4, 64, 64]},
}


@pytest.fixture
def prepared(aligned_run, tmp_path):
    """Return a function that prepares the prediction below a new place."""
    model = join(tmp_path.as_uri(), "model.keras")
    # Without padding all patches agree where they overlap, so that one sees that they do.
    replace_bytes(model, model_file(padding="valid"))
    volume = aligned_run.rpartition("/runs/")[0]
    return lambda name: prepare(volume, model, join(tmp_path.as_uri(), name), SETTINGS)


def test_a_killed_worker_process_does_not_change_a_byte(prepared, aligned_run):
    roots, killed = {}, []
    with local_client(2) as client:

        def kill_once(state):
            if state.blocks_done >= 4 and not killed:
                killed.append(min(client.run(os.getpid).values()))
                os.kill(killed[0], signal.SIGKILL)

        for name, tell in (("killed", kill_once), ("calm", None)):
            run_uri = prepared(name).run_uri
            run_prediction(run_uri, client, tell=tell)
            roots[name] = manifest.run_root(run_uri)
    assert killed
    assert roots["killed"] == roots["calm"]
    volume = run_uri.rpartition("/runs/")[0]
    assert verify_volume(volume, full=True).is_clean

    from inference.backends.files import load_network
    from storage.store import read_bytes

    image = open_aligned(aligned_run).values
    network = load_network(read_bytes(join(run_uri, "model.keras")))
    values = network((image / np.float32(255)).astype(np.float32)[None, ..., None])[0]
    found = open_prediction(volume).values[:, 3:-3, 3:-3, 3:-3]
    seen = np.abs(found - 255 * np.moveaxis(values, -1, 0)) < 0.51
    # Where the phantom has no data over a whole patch, the network is not asked.
    assert seen[:, image[3:-3, 3:-3, 3:-3] > 0].all()
    assert seen.mean() > 0.9
