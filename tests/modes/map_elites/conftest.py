"""A small evolution, run once."""

import pytest
from modes_map_elites import Evolved, small_config


@pytest.fixture(scope="session")
def evolved():
    return Evolved(small_config())
