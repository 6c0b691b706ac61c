from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.benchmarks.storage.site import REAL, TINY, Site, built_site


@pytest.fixture(scope="session")
def site(request: pytest.FixtureRequest, tmp_path_factory) -> Iterator[Site]:
    """A volume in every place and form: tiny in a test run, real with --benchmark-enable."""
    scale = REAL if request.config.getoption("--benchmark-enable") else TINY
    with built_site(tmp_path_factory.mktemp("site"), scale) as built:
        yield built
