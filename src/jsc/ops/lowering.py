"""The dense methods `im2col` and `mec`: lowering, then the library's matrix product.

Both pack the filters as (Kh * Kw * C, K), channels fastest among the rows, so that the lowered
matrix is made of whole pixels of a channels-last map; laid out so, the library's batched product is
2-3 times faster than with the transpose. im2col takes larger planar maps as they are: its matrix
then has the windows as columns and the product is the planar output, without a transposition
anywhere.
"""

from __future__ import annotations

import torch
from torch import Tensor

from jsc import _config
from jsc._geometry import ConvGeometry
from jsc._kernels.lowering import lowering
from jsc.ops._buffer import require

# MEC's schedules: A, one product per output row over all images, then a repack; B, one product per
# image and output row, in place. A pays where rows are too short to fill a product by themselves.
MEC_SHORT_ROW = 16
SMALL_MAP = 256  # im2col turns planar maps of up to so many windows into channels-last ones
LOWERED_BYTES = 64 * 1024 * 1024  # images are lowered together up to here


def mec_unsupported(g: ConvGeometry) -> str | None:
    if g.Dh > 1:
        return f"MEC reads consecutive rows: it has no vertical dilation, {g.Dh} given"
    if g.H + 2 * g.Ph > 2 * (g.H + g.Kh * g.Oh):
        return (
            f"MEC lowers all padded rows: of a map of {g.H} rows with a padding of {g.Ph} and a "
            f"stride of {g.Sh}, nearly all of them would be padding that no window reads"
        )
    return None


def im2col_pack(weight: Tensor, g: ConvGeometry) -> Tensor:
    """(K, C, Kh, Kw) -> (Kh * Kw * C, K)."""
    return weight.detach().permute(2, 3, 1, 0).reshape(-1, g.K).contiguous()


def _require(input: Tensor, packed: Tensor, bias: Tensor | None, g: ConvGeometry) -> None:
    require(input, (g.N, g.C, g.H, g.W), packed.dtype, "input")
    require(packed, (g.Kh * g.Kw * g.C, g.K), packed.dtype, "the packed weight")
    if bias is not None:
        require(bias, (g.K,), packed.dtype, "bias")


def _product(a: Tensor, b: Tensor, bias: Tensor | None, out: Tensor) -> None:
    if bias is None:
        torch.mm(a, b, out=out)
    else:
        torch.addmm(bias, a, b, out=out)


def _pixels_out(input: Tensor, g: ConvGeometry) -> Tensor:
    shape, last = (g.N, g.K, g.Oh, g.Ow), torch.channels_last
    return torch.empty(shape, dtype=input.dtype, device="cpu", memory_format=last)


def _is_pointwise(g: ConvGeometry) -> bool:
    return (g.Kh, g.Kw, g.Sh, g.Sw, g.Ph, g.Pw) == (1, 1, 1, 1, 0, 0)


def im2col_run(input: Tensor, packed: Tensor, bias: Tensor | None, g: ConvGeometry) -> Tensor:
    _require(input, packed, bias, g)
    input = input.detach().resolve_neg()
    if not input.is_contiguous(memory_format=torch.channels_last) and g.Oh * g.Ow > SMALL_MAP:
        return _im2col_planes(input.contiguous(), packed, bias, g)
    return _im2col_rows(input, packed, bias, g)


def _im2col_rows(input: Tensor, packed: Tensor, bias: Tensor | None, g: ConvGeometry) -> Tensor:
    """Channels-last in and out: (windows, taps) x (taps, K)."""
    out = _pixels_out(input, g)
    if out.numel() == 0:
        return out
    x = input.permute(0, 2, 3, 1).contiguous()
    rows = out.permute(0, 2, 3, 1).view(-1, g.K)
    image = g.Oh * g.Ow
    if _is_pointwise(g):
        _product(x.view(-1, g.C), packed, bias, rows)
        return out
    taps = packed.shape[0]
    together = min(g.N, max(1, LOWERED_BYTES // (image * max(1, taps) * x.element_size())))
    lowered = x.new_empty((together * image, taps))
    for n in range(0, g.N, together):
        part = x[n : n + together]
        used = lowered[: len(part) * image]
        lowering.im2col_rows(part.numpy(), used.numpy(), g, _config.num_threads(used.numel()))
        _product(used, packed, bias, rows[n * image : (n + len(part)) * image])
    return out


def _im2col_planes(input: Tensor, packed: Tensor, bias: Tensor | None, g: ConvGeometry) -> Tensor:
    """Planar in and out: (K, taps) x (taps, windows), image by image."""
    out = input.new_empty((g.N, g.K, g.Oh, g.Ow))
    if out.numel() == 0:
        return out
    column = None if bias is None else bias.view(-1, 1)
    lowered = None if _is_pointwise(g) else input.new_empty((packed.shape[0], g.Oh * g.Ow))
    for image, result in zip(input, out.view(g.N, g.K, -1), strict=True):
        if lowered is None:
            _product(packed.t(), image.view(g.C, -1), column, result)
        else:
            lowering.im2col_planes(
                image.numpy(), lowered.numpy(), g, _config.num_threads(lowered.numel())
            )
            _product(packed.t(), lowered, column, result)
    return out


def mec_run(input: Tensor, packed: Tensor, bias: Tensor | None, g: ConvGeometry) -> Tensor:
    """Channels-last out. The lowered matrix is read through overlapping views; none is copied."""
    _require(input, packed, bias, g)
    if _is_pointwise(g):  # the lowered matrix is the map itself
        return _im2col_rows(input.detach().resolve_neg(), packed, bias, g)
    out = _pixels_out(input, g)
    if out.numel() == 0:
        return out
    x = input.detach().resolve_neg().permute(0, 2, 3, 1).contiguous()
    height, row, taps = g.H + 2 * g.Ph, g.Kw * g.C, packed.shape[0]
    lowered = x.new_empty((g.N, g.Ow, height * row))
    lowering.mec(x.numpy(), lowered.numpy(), g, _config.num_threads(lowered.numel()))
    last = out.permute(0, 2, 3, 1)
    if g.N > 1 and g.Ow <= MEC_SHORT_ROW:
        views = lowered.as_strided((g.Oh, g.N * g.Ow, taps), (g.Sh * row, height * row, 1))
        by_row = torch.bmm(views, packed.expand(g.Oh, taps, g.K))
        last.copy_(by_row.view(g.Oh, g.N, g.Ow, g.K).transpose(0, 1))
    else:
        for image, result in zip(lowered, last, strict=True):
            views = image.as_strided(
                (g.Oh, g.Ow, taps), (g.Sh * row, height * row, 1), image.storage_offset()
            )
            torch.bmm(views, packed.expand(g.Oh, taps, g.K), out=result)
    if bias is not None:
        last += bias
    return out
