"""direct_bf16: the direct convolution of a network program with pairs of bfloat16."""

import pytest
import torch
from convolution_runs import convolution, drawn_for_pairs, pairs_fields
from network_maps import Maps, act, close

from jsc import _config
from jsc._precision import rounded
from jsc.network.emit import NOWHERE


@pytest.fixture(params=[1, 2], ids=lambda n: f"{n} threads")
def maps(request, isa):
    return Maps(isa, request.param)


needs_bf16 = pytest.mark.skipif(not _config.bf16(), reason="this CPU multiplies no bfloat16")


@needs_bf16
@pytest.mark.parametrize("seed", range(40))
def test_direct_bf16(maps, isa, seed):
    if isa != "avx512":
        pytest.skip("an extension of AVX-512")
    r, g, cut = drawn_for_pairs(seed)
    ours, exact = convolution(
        maps, r, g, "direct_bf16", special=seed % 4 == 0, precision="bf16",
        fields=pairs_fields(maps, cut),
    )  # fmt: skip
    close(ours, exact, 1e-5)  # of chains of up to 1,750 products


@needs_bf16
@pytest.mark.parametrize("channels", [3, 16, 50])
@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("stride", [1, 2])
def test_direct_bf16_rounds_to_the_nearest(maps, isa, channels, kernel, stride):
    """Ties to even; what is too large becomes inf, NaN and inf stay, denormals count as zero."""
    if isa != "avx512":
        pytest.skip("an extension of AVX-512")
    x, w = torch.randn(2, channels, 9, 8), torch.randn(21, channels, kernel, kernel)
    x.view(torch.int32)[:, :, ::2] &= -(1 << 15)  # ties
    x[0, :, 3, 3], x[1, 0, 2, 2], x[1, 1, 4, 6] = 1e-40, float("nan"), 3.4e38
    size = (9 - kernel) // stride + 1, (8 - kernel) // stride + 1
    cut = {"vectors": 2, "chunk": -(-channels // 2), "band_rows": 2, "task_blocks": 1}

    def run(x):
        own = {
            "x": maps.put(x), "out": maps.place((2, *size, 21))[0],
            "epilogue": {"shift": 0, "has_residual": 0, "residual": NOWHERE, "act": act()},
            "Kh": kernel, "Kw": kernel, "Sh": stride, "Sw": stride,
            "Ph": 0, "Pw": 0, "Dh": 1, "Dw": 1,
        }  # fmt: skip
        fields = pairs_fields(maps, {**cut, "tiles_first": 1})
        return maps.run("direct_bf16", fields(own, w, None))

    ours = run(x)
    x[0, :, 3, 3] = 0
    assert torch.equal(ours.nan_to_num(7.0), run(rounded(x, "bf16")).nan_to_num(7.0))


@needs_bf16
@pytest.mark.parametrize("channels", [1, 5, 8])
@pytest.mark.parametrize("around", [0, 1, 3])
@pytest.mark.parametrize("step", [1, 2])
def test_what_lies_beside_a_pixel_is_not_read(maps, isa, channels, around, step):
    """A map that is a slice of a wider one, whose other channels are NaN; kernels of one column at
    a stride."""
    if isa != "avx512":
        pytest.skip("an extension of AVX-512")
    maps.arena.fill_(float("nan"))
    x, w = torch.randn(2, channels, 5, 9), torch.randn(19, channels, 1, 1)
    exact = torch.conv2d(rounded(x, "bf16").double(), rounded(w, "bf16").double(), None, step)
    own = {
        "x": maps.put(x, around=around), "out": maps.place((2, *exact.shape[2:], 19))[0],
        "epilogue": {"shift": 0, "has_residual": 0, "residual": NOWHERE, "act": act()},
        "Kh": 1, "Kw": 1, "Sh": step, "Sw": step, "Ph": 0, "Pw": 0, "Dh": 1, "Dw": 1,
    }  # fmt: skip
    cut = {"vectors": 2, "chunk": -(-channels // 2), "band_rows": 2, "task_blocks": 1}
    fields = pairs_fields(maps, {**cut, "tiles_first": 1})
    close(maps.run("direct_bf16", fields(own, w, None)), exact)
