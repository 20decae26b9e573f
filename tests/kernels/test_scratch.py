"""No result depends on unwritten memory: whatever scratch and new tensors hold before a call, the
bits are the same."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import jsc
from jsc import _config, methods
from jsc.formats import CPC, CPO, CPS
from jsc.ops import _scratch, amx, column_conv, cpc, cpc_grad, winograd

CONTENTS = {"zeros": 0x00, "NaN": 0xFF, "numbers": 0x3F, "alternating": 0x55}
MAPS = [(1, 3, 9, 7), (2, 65, 6, 5), (1, 1, 70, 3), (2, 20, 5, 13), (1, 3, 0, 5), (0, 3, 5, 5)]


@pytest.fixture(params=CONTENTS)
def content(request, monkeypatch):
    """Every buffer of scratch is full of it before each use; new tensors are full of NaN."""
    value, own = CONTENTS[request.param], _scratch.memory

    def filled(size):
        made = own(size)
        made.bytes[:] = value
        return made

    def empty(shape, dtype=float, **options):
        made = real(shape, dtype, **options)
        made.view(np.uint8).reshape(-1)[:] = value
        return made

    real = np.empty
    for module in (_scratch, amx, column_conv, cpc, cpc_grad, winograd):
        monkeypatch.setattr(module, "memory", filled)
    monkeypatch.setattr("jsc.ops.column_order.np.empty", empty)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    yield request.param
    torch.use_deterministic_algorithms(before)


def results():
    generator = torch.Generator().manual_seed(3)
    made = {}
    for shape in MAPS:
        x = torch.randn(shape, generator=generator) * (torch.rand(shape, generator=generator) < 0.4)
        w = torch.randn(9, shape[1], 3, 3, generator=generator)
        for last in (False, True):
            maps = x.contiguous(memory_format=torch.channels_last) if last else x
            for method in methods.available():
                if method != "dense" and 0 not in shape[1:]:
                    for stride in (1, 2):
                        if stride > 1 and method == "winograd":
                            continue  # it has no other
                        out = jsc.functional.conv2d(maps, w, None, stride, 2, method=method)
                        made[method, shape, last, stride] = out
            for kind in (CPO, CPS, CPC):
                format = kind.encode(maps, 3, padding=3)
                assert torch.equal(format.decode(), maps)
                made[kind, shape, last] = torch.tensor(format.nbytes)
    x, w = torch.relu(torch.randn(2, 20, 9, 8, generator=generator)), torch.randn(9, 20, 3, 3)
    x, w = (t.contiguous(memory_format=torch.channels_last) for t in (x, torch.ones_like(w)))
    for stride in (1, 2):
        out = torch.nn.functional.conv2d(x, w, None, stride, 1)
        g = methods.geometry(x, w, (stride,) * 2, (1, 1), (1, 1), 1)
        found = cpc_grad.gradients(x, torch.ones_like(out), w, g, over_input=True, input_grad=True)
        made["gradients", stride] = torch.cat([t.flatten() for t in found])
        if stride == 1:
            made["winograd", "gradient"] = winograd.weight_gradient(x, torch.ones_like(out), w, g)
    return made


def test_what_memory_held_before_does_not_matter(isa, num_threads, content):
    name = f"{isa} {num_threads}"
    expected = _EXPECTED.setdefault(name, results())
    for key, value in results().items():
        assert torch.equal(value, expected[key]), key
        assert not value.isnan().any(), key
    assert _config.SERIAL_WORK == 0


_EXPECTED: dict[str, dict] = {}
