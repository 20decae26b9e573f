"""Shared by the tests of single instructions of a network program."""

import pytest
from network_maps import Maps


@pytest.fixture(params=[1, 2, 3], ids=lambda n: f"{n} threads")
def maps(request, isa):
    return Maps(isa, request.param)
