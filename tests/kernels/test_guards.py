"""Other shapes, dtypes and weights than a kernel expects are errors, not accesses."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from jsc import _config, methods
from jsc._geometry import ConvGeometry
from jsc._kernels import cpu
from jsc.ops import amx, cpc, cpc_grad, cpo, cps, lowering

G = ConvGeometry(2, 70, 9, 8, 20, 3, 3, 1, 1, 1, 1)
LOWERED = {
    "im2col": (lowering.im2col_pack, lowering.im2col_run),
    "mec": (lowering.im2col_pack, lowering.mec_run),
}
PREPARED = {"cpc": cpc.Convolution, "cpo": cpo.prepare, "cps": cps.prepare}
METHODS = [*LOWERED, *PREPARED, "amx"]


def convolution(method, packed, bias, g):
    if method in LOWERED:
        return lambda x: LOWERED[method][1](x, packed, bias, g)
    return {**PREPARED, "amx": amx.Convolution}[method](packed, bias, g)


def packed(method, w, g):
    if method in LOWERED:
        return LOWERED[method][0](w, g)
    return (amx if method == "amx" else cpc).pack(w, g)


@pytest.fixture
def maps():
    x = torch.randint(-4, 5, (G.N, G.C, G.H, G.W)).float()
    return x, torch.randint(-4, 5, (G.K, G.C, G.Kh, G.Kw)).float(), torch.arange(20.0)


@pytest.mark.parametrize("method", METHODS)
def test_a_prepared_call_takes_its_own_input_only(isa, method, maps):
    x, w, b = maps
    run = convolution(method, packed(method, w, G), b, G)
    for other in (x[:1], x[:, :3], x[:, :, 1:], x[..., 1:], x.transpose(2, 3), x.double(), x[0]):
        with pytest.raises(ValueError, match="input must be"):
            run(other)
    assert torch.equal(run(x), F.conv2d(x, w, b, padding=1))


@pytest.mark.parametrize("method", METHODS)
def test_weights_that_were_packed_for_another_layer_are_refused(isa, method, maps):
    x, w, b = maps
    for g in (G._replace(C=3), G._replace(K=70), G._replace(Kh=1), G._replace(Kw=5)):
        other = packed(method, torch.ones(g.K, g.C, g.Kh, g.Kw), g)
        with pytest.raises(ValueError, match="packed weight must be"):
            convolution(method, other, b, G)(x)
    with pytest.raises(ValueError, match="bias must be"):
        convolution(method, packed(method, w, G), b[:3], G)(x)


@pytest.mark.parametrize("method", PREPARED)
def test_weights_that_were_packed_for_other_lanes_are_refused(method, maps):
    _, w, b = maps
    found = set()
    for name in _config.ISA_NAMES[: cpu.supported_isa() + 1]:
        with _config.use_isa(name):
            found.add(tuple(packed(method, w, G).shape))
            made = packed(method, w, G)
        with _config.use_isa("base"):
            if made.shape != packed(method, w, G).shape:
                with pytest.raises(ValueError, match="instruction set"):
                    convolution(method, made, b, G)
    assert found


def test_gradients_check_their_maps(maps):
    x, w, _ = (t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t for t in maps)
    grad = torch.ones(2, 20, 9, 8).contiguous(memory_format=torch.channels_last)
    assert cpc_grad.gradients(x, grad, w, G, over_input=True) is not None
    for call in (
        lambda: cpc_grad.gradients(x[:1], grad, w, G, over_input=True),
        lambda: cpc_grad.gradients(x, grad[..., 1:], w, G, over_input=True),
        lambda: cpc_grad.gradients(x, grad.double(), w, G, over_input=True),
        lambda: cpc_grad.gradients(grad, x[:, :5], w, G, over_input=False),
        lambda: cpc_grad.gradients(x, grad, w[:3], G, over_input=True),
    ):
        with pytest.raises(ValueError, match="must be"):
            call()
    assert cpc_grad.gradients(x[:0], grad[:0], w, G._replace(N=0), over_input=True) is None


@pytest.mark.parametrize("method", methods.available())
@pytest.mark.parametrize("last", [False, True])
def test_lazy_negation_is_seen(isa, method, last, maps):
    x, w, b = maps
    x = x.contiguous(memory_format=torch.channels_last) if last else x
    x, w, b = (torch._neg_view(t) for t in (x, w, b))
    with torch.no_grad():
        out = torch.ops.jsc.conv2d(x, w, None, b, [1, 1], [1, 1], [1, 1], 1, method)
    assert torch.equal(out, F.conv2d(x.resolve_neg(), w.resolve_neg(), b.resolve_neg(), padding=1))
