"""A small network and its fused copy."""

import pytest
from fused_networks import pair

from benchmarks.inputs import toy_networks


@pytest.fixture
def net():
    return pair(toy_networks.small_resnet(16))
