"""Maps that are slices of the channels of wider ones: the same bits, and nothing else is written.

The kernels of CPC and bf16x3 are called as a program calls them, by addresses."""

from __future__ import annotations

import pytest
import torch

from jsc import _config
from jsc._geometry import ConvGeometry
from jsc._kernels.amx import bf16x3 as amx_kernel
from jsc._kernels.cpc import forward
from jsc.ops import bf16x3, cpc
from jsc.ops._buffer import Pitches
from jsc.ops._scratch import memory
from jsc.ops.epilogue import Epilogue, Norm

needs_amx = pytest.mark.skipif(not _config.amx(), reason="this CPU has no AMX tiles")

GEOMETRIES = {
    "3x3": ConvGeometry(2, 70, 9, 8, 40, 3, 3, 1, 1, 1, 1),
    "3x3 of few channels": ConvGeometry(1, 3, 11, 10, 33, 3, 3, 2, 2, 1, 1),  # bf16x3: windows
    "1x1": ConvGeometry(3, 33, 7, 5, 65, 1, 1),
    "1x1 stride 2": ConvGeometry(2, 16, 8, 9, 24, 1, 1, 2, 2),
    "5x2": ConvGeometry(1, 20, 9, 13, 32, 5, 2, 1, 2, 2, 0),
}
FILL = 7.0


def wide(x: torch.Tensor, left: int, right: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(N, H, W, left + C + right) that holds channels-last `x`, and the slice that is `x`."""
    N, C, H, W = x.shape
    whole = torch.full((N, H, W, left + C + right), FILL, dtype=x.dtype)
    part = whole[..., left : left + C]
    part.copy_(x.permute(0, 2, 3, 1))
    return whole, part


def problem(g: ConvGeometry, dtype: torch.dtype, epilogue: bool):
    x = torch.randn(g.N, g.C, g.H, g.W, dtype=dtype).relu()
    w, b = torch.randn(g.K, g.C, g.Kh, g.Kw, dtype=dtype), torch.randn(g.K, dtype=dtype)
    residual = torch.randn(g.N, g.K, g.Oh, g.Ow, dtype=dtype)
    if not epilogue:
        return x, w, b, None, Epilogue()
    norm = Norm(torch.randn(g.K, dtype=dtype), torch.rand(g.K, dtype=dtype) + 0.1, None, None, 1e-5)
    return x, w, b, residual, Epilogue(norm, True)


def call(kernel, x, residual, out, threads):
    """One call by addresses; True unless bf16x3 refuses the input."""
    added = 0 if residual is None else residual.data_ptr()
    if isinstance(kernel, amx_kernel.Convolution):
        scratch = memory(kernel.scratch_bytes(threads))
        return kernel(x.data_ptr(), added, out.data_ptr(), scratch.address, threads)
    rows = 2
    scratch = memory(kernel.scratch_bytes(rows, True, threads))
    kernel(x.data_ptr(), added, 0, out.data_ptr(), 0, scratch.address, rows, threads)
    return True


def check(method, g, dtype, epilogue):
    x, w, b, residual, wanted = problem(g, dtype, epilogue)
    packed = method.pack(w, g)
    expected = method.Convolution(packed, b, g, wanted).fused(x, residual)[0]
    whole_x, part_x = wide(x, 3, 5)
    whole_out, part_out = wide(torch.zeros_like(expected), 2, 9)
    part_residual = None if residual is None else wide(residual, 1, 1)[1]
    pitches = Pitches(g.C + 8, g.K + 11, g.K + 2)
    kernel, held = method.prepare_kernel(packed, b, g, wanted, pitches)
    threads = _config.num_threads(g.macs)
    assert call(kernel, part_x, part_residual, part_out, threads)
    assert torch.equal(part_out.permute(0, 3, 1, 2), expected)
    assert bool((whole_out[..., :2] == FILL).all())
    assert bool((whole_out[..., -9:] == FILL).all())
    whole_x[..., :3] = whole_x[..., -5:] = torch.nan  # what lies between is not read
    assert call(kernel, part_x, part_residual, part_out, threads)
    assert torch.equal(part_out.permute(0, 3, 1, 2), expected)
    assert held[0] is not None


@pytest.mark.parametrize("epilogue", [False, True])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_cpc(isa, num_threads, dtype, name, epilogue):
    check(cpc, GEOMETRIES[name], dtype, epilogue)


@needs_amx
@pytest.mark.parametrize("heavy", [False, True])
@pytest.mark.parametrize("epilogue", [False, True])
@pytest.mark.parametrize("name", GEOMETRIES)
def test_bf16x3(num_threads, name, epilogue, heavy, monkeypatch):
    if heavy:  # bands are shared between threads
        monkeypatch.setattr(bf16x3, "WEIGHT_BYTES", 0)
    check(bf16x3, GEOMETRIES[name], torch.float32, epilogue)


def test_masks_of_a_slice(isa, num_threads, dtype):
    """Masks of the output are those of its channels alone, also where a pass of their own makes
    them."""
    g = GEOMETRIES["3x3"]
    x, w, b, _, _ = problem(g, dtype, False)
    packed, wanted = cpc.pack(w, g), Epilogue(None, True, True)
    expected, masks = cpc.Convolution(packed, b, g, wanted).fused(x)
    kernel, held = cpc.prepare_kernel(packed, b, g, wanted, Pitches(g.C, g.K + 3, g.K))
    assert held
    out, part = wide(torch.zeros_like(expected), 3, 0)
    found, pixels = cpc.empty_masks(*expected.shape), x.permute(0, 2, 3, 1).contiguous()
    threads = _config.num_threads(g.macs)
    scratch = memory(kernel.scratch_bytes(3, True, threads))
    kernel(pixels.data_ptr(), 0, 0, part.data_ptr(), found.data_ptr(), scratch.address, 3, threads)
    assert torch.equal(part.permute(0, 3, 1, 2), expected)
    assert bool((out[..., :3] == FILL).all())
    assert torch.equal(found.view(torch.int64), masks.view(torch.int64))


@pytest.mark.parametrize(
    "make", [amx_kernel.Convolution, lambda f: forward.Convolution(False, f, 0)]
)
def test_a_field_that_is_missing_is_an_error(make):
    with pytest.raises(ValueError, match="No value specified for struct attribute"):
        make({"N": 1, "C": 3})
