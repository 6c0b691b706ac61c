"""Files that would run a command if they were trusted (row 32 of the fault matrix)."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from alignment.config import load_config
from alignment.errors import ConfigError
from storage.errors import StorageError
from storage.sections import open_source


class Trap:
    def __init__(self, sign: Path) -> None:
        self.sign = sign

    def __reduce__(self):
        return Path.touch, (self.sign,)


@pytest.fixture
def sign(tmp_path):
    return tmp_path / "code-was-run"


def test_a_pickle_that_is_trusted_springs_the_trap(sign):
    pickle.loads(pickle.dumps(Trap(sign)))
    assert sign.exists()


@pytest.mark.parametrize(
    "text",
    [
        "relax: !!python/object/apply:os.system ['touch {}']",
        "!!python/object/new:os.system ['touch {}']",
        "masks: !!python/name:os.system",
        "relax: !!python/object/apply:pathlib.Path.touch [{}]",
    ],
)
def test_yaml_runs_nothing(sign, text):
    with pytest.raises(ConfigError):
        load_config(text.format(sign))
    assert not sign.exists()


def test_a_pickled_configuration_runs_nothing(sign):
    with pytest.raises(ConfigError):
        load_config(pickle.dumps(Trap(sign), protocol=0).decode("latin-1"))
    assert not sign.exists()


@pytest.mark.parametrize("name", ["raw.npy", "raw.tif", "raw.zarr", "raw.pt"])
def test_a_pickled_source_runs_nothing(tmp_path, sign, name):
    path = tmp_path / name
    with path.open("wb") as file:
        if name == "raw.npy":
            np.save(file, np.array([Trap(sign)], object), allow_pickle=True)
        else:
            pickle.dump(Trap(sign), file)
    with pytest.raises(StorageError):
        open_source(str(path))
    assert not sign.exists()
