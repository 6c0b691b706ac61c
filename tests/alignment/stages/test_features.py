import typing
from types import SimpleNamespace

import numpy as np
import pytest

from alignment.config import FeaturesConfig, parse_config
from alignment.errors import ConfigError
from alignment.features import normalise
from alignment.stages.features import KINDS
from inference.model_file import digest
from inference.shipped import SHIPPED


def test_every_kind_of_features_that_can_be_set_can_be_made():
    assert set(KINDS) == set(typing.get_args(FeaturesConfig.model_fields["kind"].annotation))


def test_the_band_pass_is_made_with_its_settings():
    random = np.random.default_rng(0)
    image = random.integers(1, 256, (60, 70), dtype=np.uint8)
    valid = random.random((60, 70)) > 0.1
    config = FeaturesConfig(sigma_fine_px=2.0, sigma_coarse_px=5.0)
    run = SimpleNamespace(config=SimpleNamespace(features=config))
    made = KINDS["bandpass"](run)(image, valid)
    np.testing.assert_array_equal(made, normalise(image, valid, config))
    assert np.abs(made - normalise(image, valid, FeaturesConfig())).max() > 0.1


def test_the_shipped_network_makes_features_where_none_is_named():
    shipped = digest(SHIPPED.read_bytes())
    run = SimpleNamespace(
        config=SimpleNamespace(features=FeaturesConfig(kind="nccnet")),
        attachments={"features": shipped},
    )
    image = np.random.default_rng(0).integers(1, 256, (60, 70), dtype=np.uint8)
    made = KINDS["nccnet"](run)(image, np.ones(image.shape, bool))
    assert made.std() == pytest.approx(1, abs=0.02)


def test_an_unknown_kind_is_refused_with_those_that_are_known():
    with pytest.raises(ConfigError, match=r"features\.kind.*'bandpass'"):
        parse_config({"features": {"kind": "wavelet"}})
