"""The oracle of the convolutions, against torch."""

import torch
from hypothesis import HealthCheck, given, settings
from method_runs import by_definition
from strategies import conv_cases

from jsc._geometry import ConvGeometry

fixtures = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@fixtures
@given(case=conv_cases(groups=2))
def test_definition_agrees_with_torch(dtype, case):
    x, w, b = case.tensors(dtype, integer=True)
    g = ConvGeometry(
        *x.shape, w.shape[0], *w.shape[2:], *case.stride, *case.padding, *case.dilation, case.groups
    )
    assert torch.equal(by_definition(x, w, b, g), case.by_torch(x, w, b))
