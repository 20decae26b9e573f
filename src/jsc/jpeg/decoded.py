"""The pixels that libjpeg decodes from the file it writes, computed without the file.

Integer arithmetic of libjpeg-turbo in its default, accurate form ("islow"), step by step: colour in
16-bit fixed point, box downsampling, two passes of the integer DCT of Loeffler, Ligtenberg and
Moschytz (ICASSP 1989), division by the tables, and back with a triangle filter for chroma. The same
bits as the library, except where coefficients overflow its 16-bit registers.

Each pass of the DCT is linear before its one rounding shift, hence a product with an integer
matrix; all products are below 2^31 and exact in float64.

Source: jccolor.c, jcsample.c, jcprepct.c, jfdctint.c, jcdctmgr.c, jidctint.c, jdsample.c,
jdcolor.c of libjpeg-turbo.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from jsc import _checks
from jsc.functional.jpeg import as_batch
from jsc.functional.options import SUBSAMPLINGS, JpegOptions, Scale
from jsc.jpeg.files import require_integer_tables, to_bytes
from jsc.typing import Subsampling


def _matrix() -> list[list[int]]:
    """The DCT matrix in 13-bit fixed point, as jfdctint.c's sums and differences multiply it out;
    row 0 is 8192 throughout: the factor 1 / sqrt 8 is part of the shifts."""
    # on x0 - x7, x1 - x6, x2 - x5, x3 - x4, of its tmp7, tmp6, tmp5, tmp4
    z5, z1, z2, z3, z4 = 9633, -7373, -20995, -16069, -3196
    odd = {
        1: (12299 + z1 + z4 + z5, z5, z4 + z5, z1 + z5),
        3: (z5, 25172 + z2 + z3 + z5, z2 + z5, z3 + z5),
        5: (z4 + z5, z2 + z5, 16819 + z2 + z4 + z5, z5),
        7: (z1 + z5, z3 + z5, z5, 2446 + z1 + z3 + z5),
    }
    # on x0 + x7, x1 + x6, x2 + x5, x3 + x4
    a, b = 4433 + 6270, 4433 - 15137
    even = {
        0: (8192, 8192, 8192, 8192),
        2: (a, 4433, -4433, -a),
        4: (8192, -8192, -8192, 8192),
        6: (4433, b, -b, -4433),
    }
    rows = []
    for k in range(8):
        half = even[k] if k % 2 == 0 else odd[k]
        rows.append([*half, *(v if k % 2 == 0 else -v for v in reversed(half))])
    return rows


MATRIX = _matrix()


def _fix(value: float) -> int:
    return int(value * 65536 + 0.5)


def _descale(x: Tensor, bits: int) -> Tensor:
    """x / 2^bits, rounded, halves up."""
    return ((x + 2.0 ** (bits - 1)) / 2.0**bits).floor()


def decoded(
    x: Tensor,
    tables: Tensor,
    *,
    subsampling: Subsampling = "4:4:4",
    mean: Scale = None,
    std: Scale = None,
    peak: float = 1.0,
) -> Tensor:
    """What comes back from a JPEG file with these tables: :func:`save` and :func:`load` in one, for
    whole batches and without Pillow.

    Parameters
    ----------
    x : Tensor, (N, 3, H, W) or (N, 1, H, W), or one image without N
        uint8; or floating in [0, peak], normalised with `mean` and `std` if given, which is rounded
        to 8 bits as a file would.
    tables : Tensor of integers, (2, 8, 8), for grey images (1, 8, 8) does; 1 to 255
    subsampling, mean, std, peak
        As in :func:`jsc.functional.jpeg`.

    Returns
    -------
    Tensor, shape and dtype of `x`: whole grey levels from 0 to 255, scaled and normalised as `x`.

    Raises
    ------
    TypeError, ValueError  if an argument does not fit.

    Notes
    -----
    Equal to libjpeg-turbo bit by bit (tested at every subsampling). No gradient. As a
    straight-through layer: `y = layer(x); y = y + (layer.decoded(x) - y).detach()`.
    Cost: plain torch in float64, far slower than the layer.
    """
    options = JpegOptions(subsampling=subsampling, mean=mean, std=std, peak=peak)
    return decoded_with(options, x, tables)


def decoded_with(options: JpegOptions, x: Tensor, tables: Tensor) -> Tensor:
    """:func:`decoded` with options that are checked already; those of the quantiser do not count:
    a file rounds."""
    _checks.require_tensor(x, "x")
    pixels = as_batch(x.detach())
    normalised = x.is_floating_point()
    if normalised:
        pixels = _checks.as_computed(pixels, "x")
        mean_, std_ = (
            torch.tensor(values, dtype=pixels.dtype, device=pixels.device).view(1, -1, 1, 1)
            for values in options.normalisation(pixels.shape[1])
        )
        pixels = pixels * std_ + mean_
    dtype, pixels = pixels.dtype, to_bytes(pixels, options.peak)
    require_integer_tables(tables, pixels.shape[1])
    if not pixels.numel():
        return x.clone()
    found = _decode(pixels.double(), tables.double().to(pixels.device), options.subsampling)
    if normalised:
        found = (found.to(dtype) * (options.peak / 255) - mean_) / std_
    return found.to(x.dtype).view(x.shape)


def _decode(pixels: Tensor, tables: Tensor, subsampling: str) -> Tensor:
    h, w = pixels.shape[2:]
    if pixels.shape[1] == 1:
        return _plane(_extend(pixels, 8, 8), tables[0])[:, :, :h, :w]
    v, u = SUBSAMPLINGS[subsampling]
    y, c = _to_ycc(pixels).split([1, 2], 1)
    y = _plane(_extend(y, 8, 8), tables[0])[:, :, :h, :w]
    c = _downsample(_extend(c, v, 8 * u), v, u)  # columns are filled up before, rows after
    c = _plane(_extend(c, 8, 8), tables[1])[:, :, : -(-h // v), : -(-w // u)]
    return _to_rgb(torch.cat([y, _upsample(c, v, u)[:, :, :h, :w]], 1))


def _extend(x: Tensor, rows: int, columns: int) -> Tensor:
    pad = (0, -x.shape[3] % columns, 0, -x.shape[2] % rows)
    return F.pad(x, pad, mode="replicate") if any(pad) else x


def _to_ycc(pixels: Tensor) -> Tensor:
    half, r_g_b = 32768, pixels.unbind(1)
    rows = (
        ((0.299, 0.587, 0.114), half),
        ((-0.16874, -0.33126, 0.5), (128 << 16) + half - 1),
        ((0.5, -0.41869, -0.08131), (128 << 16) + half - 1),
    )
    planes = []
    for factors, constant in rows:
        total = torch.full_like(r_g_b[0], constant)
        for factor, channel in zip(factors, r_g_b, strict=True):
            total += (_fix(factor) if factor > 0 else -_fix(-factor)) * channel
        planes.append((total / 65536).floor())
    return torch.stack(planes, 1)


def _to_rgb(planes: Tensor) -> Tensor:
    half = 32768
    y, cb, cr = planes[:, 0], planes[:, 1] - 128, planes[:, 2] - 128
    red = y + ((_fix(1.402) * cr + half) / 65536).floor()
    green = y + ((half - _fix(0.34414) * cb - _fix(0.71414) * cr) / 65536).floor()
    blue = y + ((_fix(1.772) * cb + half) / 65536).floor()
    return torch.stack([red, green, blue], 1).clamp(0, 255)


def _downsample(x: Tensor, v: int, u: int) -> Tensor:
    """Means over v x u samples; halves go down and up from column to column."""
    if (v, u) == (1, 1):
        return x
    total = F.avg_pool2d(x, (v, u), divisor_override=1)
    odd = torch.arange(total.shape[3], dtype=x.dtype, device=x.device) % 2
    return ((total + odd + (1 if v == 2 else 0)) / (v * u)).floor()


def _upsample(x: Tensor, v: int, u: int) -> Tensor:
    """A triangle filter: 3/4 of the nearer and 1/4 of the further sample, in each direction."""
    if u == 1:
        return x
    n, c, h, w = x.shape
    if w <= 2:  # the library has no filter for these
        return x.repeat_interleave(v, 2).repeat_interleave(u, 3)
    if v == 2:
        padded = F.pad(x, (0, 0, 1, 1), mode="replicate")
        rows = torch.stack([3 * x + padded[:, :, :-2], 3 * x + padded[:, :, 2:]], 3)
        x, bits = rows.reshape(n, c, 2 * h, w), (4, 8, 7)
    else:
        bits = (2, 1, 2)
    shift, before, after = bits
    padded = F.pad(x, (1, 1, 0, 0), mode="replicate")
    left = ((3 * x + padded[..., :-2] + before) / 2**shift).floor()
    right = ((3 * x + padded[..., 2:] + after) / 2**shift).floor()
    return torch.stack([left, right], 4).reshape(n, c, x.shape[2], 2 * w)


def _plane(x: Tensor, table: Tensor) -> Tensor:
    """DCT, quantisation, inverse of 8-bit samples whose sides are multiples of 8."""
    n, c, h, w = x.shape
    matrix = torch.tensor(MATRIX, dtype=x.dtype, device=x.device)
    blocks = x.reshape(n, c, h // 8, 8, w // 8, 8).transpose(3, 4) - 128
    z = _descale(matrix @ _descale(blocks @ matrix.T, 11), 15)
    step = 8 * table  # the transform is 8 times the orthonormal one
    z = torch.sign(z) * ((z.abs() + (step / 2).floor()) / step).floor() * table
    blocks = _descale(_descale(matrix.T @ z, 11) @ matrix, 18)
    return (blocks + 128).clamp(0, 255).transpose(3, 4).reshape(n, c, h, w)
