"""The JPEG layer: colour transform, block DCT, quantiser and back, differentiable in image and
tables."""

from __future__ import annotations

import torch
from torch import Tensor

from jsc import _checks
from jsc.functional.dct import kernel_runs
from jsc.functional.options import JpegOptions, Scale
from jsc.functional.quant import hardness_of, positive
from jsc.ops._library import recorded
from jsc.ops._torch_jpeg import layer
from jsc.ops.jpeg import Jpeg
from jsc.typing import ImagePadding, Quantizer, Subsampling

torch.fx.wrap("jpeg_with")  # one node of a graph: its checks cannot ask a Proxy


def jpeg(
    x: Tensor,
    tables: Tensor,
    *,
    alpha: Tensor | float = 5.0,
    kappa: Tensor | float | None = None,
    quantizer: Quantizer = "soft",
    window: int | None = None,
    levels: int | None = None,
    subsampling: Subsampling = "4:4:4",
    mean: Scale = None,
    std: Scale = None,
    peak: float = 1.0,
    chroma_offset: float = 0.0,
    padding: ImagePadding = "replicate",
    generator: torch.Generator | None = None,
) -> Tensor:
    """What a JPEG encoder and decoder do to an image, with tables and quantiser differentiable [1].

        out = P^-1( D' Q( D P(x) D' ) D )

    block by block, with P the level shift by 128 and RGB -> YCbCr [2], D the DCT matrix of
    :func:`block_dct` and Q :func:`soft_quantize`.

    Parameters
    ----------
    x : Tensor, (N, 3, H, W) RGB or (N, 1, H, W) grey, or one image without N; any H, W and strides
        In [0, peak], then normalised with `mean` and `std` if those are given. float32 or float64;
        float16 and bfloat16 are computed in float32, and rounded at the end.
        Or uint8, as a file has it: pixels in 0 .. 255 whatever `peak`, `mean` and `std` are, which
        say what comes out; also (N, H, W, 3) and (N, H, W, 1), unless H is 1 or 3.
    tables : Tensor, (2, 8, 8) or (K, 2, 8, 8), > 0; for grey images 1 in place of 2 does
        In the precision of `x`; float16, bfloat16 and float32 go with each other, all with uint8.
        Quantisation steps of Y and of Cb and Cr, natural order, in grey levels of an 8-bit image
        whatever the peak. Entries below 1e-5 act as 1e-5, and of gradients receive those that would
        raise them. K tables are K rounds of the quantiser, one after the other between one DCT and
        one inverse: Q_K(... Q_1(z)).
    alpha, kappa : float, or Tensor broadcastable to `tables`
        Sharpness per squared grey level; or hardness kappa = alpha q^2, which replaces alpha when
        given. (K, 1, 1, 1) is one number a round.
    quantizer : str
        "soft"    the mean of the levels, see :func:`soft_quantize`
        "hard"    rounding, ties to even; derivative 0 in x, round(z / q) in the tables
        "ste"     rounding, with derivative 1 in x and round(u) - u in the tables (straight-through)
        "sample"  a level drawn from P(k | z), clamped to `levels`, with the derivative of "soft"
    window, levels : int, optional
        As for :func:`soft_quantize`; the authors' operator has 5 and 127. Hard rounding has no
        window.
    subsampling : str
        "4:4:4", "4:2:2" or "4:2:0": chroma is averaged before the DCT and interpolated linearly
        after it.
    mean, std : float or one per channel, optional
        Of the normalisation of `x` and of the result: x = (pixel - mean) / std, where
        pixels are in [0, peak].
    peak : float
        Value of white: 1, or 255.
    chroma_offset : float
        Added to Cb and Cr before the DCT and taken off after; the authors' code has 0.5,
        true JFIF 0.
    padding : str
        How images are filled up to whole blocks: "replicate" the edge, or "zero" (mid-grey, the
        authors').
    generator : torch.Generator, optional
        Source of randomness of "sample".

    Returns
    -------
    Tensor, shape, dtype and memory format of `x`: channels-last if that is, else contiguous. Not
    clipped to [0, peak] and not rounded. Inside autocast, half precision gives float32, as with
    torch's own precision-sensitive functions. Of uint8 images (N, C, H, W), contiguous, in the
    dtype of `tables`.

    Raises
    ------
    TypeError   if an argument is of the wrong type or dtype.
    ValueError  if a shape does not fit or an option does not exist.

    Notes
    -----
    Gradient: x, tables, alpha or kappa. Second derivatives are computed in plain torch, slowly;
    forward mode is refused. `torch.compile(fullgraph=True)`, `torch.export`, `torch.fx` and
    `torch.func` take the layer as it is; `torch.vmap` calls it once for each element, so prefer a
    batch of images. `torch.jit.trace` and `torch.onnx.export` write down torch's own operators, for
    any size: what they save runs without jsc. `torch.jit.script` cannot compile it, and says so.
    The layer is one pass over memory, forward and backward, at every setting; only x is kept in
    between. On devices other than the CPU it is plain torch, and follows torch's switches of
    precision (`torch.backends.cuda.matmul.fp32_precision`).
    The same bits for any number of threads and any split of the batch (tables' gradients, and
    "sample": of threads only).
    A NaN stays in its block, and where chroma is subsampled reaches the pixels around it.

    References
    ----------
    [1] A. H. Salamah, K. Zheng, Y. Liu, E.-H. Yang, "JPEG Inspired Deep Learning", ICLR 2025,
        arXiv:2410.07081.
    [2] ITU-T Recommendations T.81 (1992) and T.871 (2011).

    Examples
    --------
    >>> x = torch.rand(8, 3, 224, 224)
    >>> y = jsc.functional.jpeg(x, jsc.jpeg.quality_tables(75), kappa=10.0)
    """
    options = JpegOptions(
        quantizer=quantizer,
        window=window,
        levels=levels,
        subsampling=subsampling,
        mean=mean,
        std=std,
        peak=peak,
        chroma_offset=chroma_offset,
        padding=padding,
    )
    return jpeg_with(options, x, tables, alpha, kappa, generator)


def jpeg_with(
    options: JpegOptions,
    x: Tensor,
    tables: Tensor,
    alpha: Tensor | float = 5.0,
    kappa: Tensor | float | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """:func:`jpeg` with options that are checked already."""
    images, steps = checked(x, tables, or_bytes=True)
    y = _computed(options, images, steps, alpha, kappa, generator)
    if images.dtype == torch.uint8:
        y = y.to(_checks.result_dtype(tables))
    else:
        y = laid_out_as(images, y.to(_checks.result_dtype(x)))
    return y if x.ndim == 4 else y.squeeze(0)


def laid_out_as(images: Tensor, y: Tensor) -> Tensor:
    """`y` channels-last if `images` are, else contiguous."""
    # A library would take a tensor for channels-last that has channels, and them innermost.
    last = images.shape[1] > 1 and images.stride(1) == 1 and not images.is_contiguous()
    # Not by a memory format, which torch.vmap refuses.
    return y.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2) if last else y.contiguous()


def _computed(
    options: JpegOptions,
    x: Tensor,
    tables: Tensor,
    alpha: Tensor | float,
    kappa: Tensor | float | None,
    generator: torch.Generator | None,
) -> Tensor:
    """Of what :func:`checked` returns."""
    channels = x.shape[1]
    q = positive(tables)
    hardness = hardness_of(q, alpha if kappa is None else None, kappa, q).expand(q.shape)
    if channels == 1:
        q, hardness = q.narrow(-3, 0, 1), hardness.narrow(-3, 0, 1)
    if q.ndim == 3:  # one round
        q, hardness = q.unsqueeze(0), hardness.unsqueeze(0)
    settings = options.settings(channels)
    draws = options.quantizer == "sample"
    if kernel_runs(x):
        return Jpeg.call(x, q, hardness, _seed(x, generator) if draws else None, settings)
    if draws and recorded():
        raise ValueError(
            'quantizer="sample" draws with jsc\'s own generator, which torch.jit.trace and '
            "torch.onnx.export cannot write down; export with another quantizer"
        )
    seed = _seed(x, generator) if draws else None
    with torch.autocast(x.device.type, enabled=False):
        return layer(x, q, hardness, seed, settings)


def _seed(x: Tensor, generator: torch.Generator | None) -> Tensor:
    if generator is None:  # traced programs do not take `generator=None`
        return torch.randint(2**63 - 1, (1,), dtype=torch.int64, device=x.device)
    return torch.randint(2**63 - 1, (1,), generator=generator, device=x.device)


def checked(x: Tensor, tables: Tensor, or_bytes: bool = False) -> tuple[Tensor, Tensor]:
    """Images and tables that the layer takes, as it computes with them: (N, C, H, W), and in
    float32 or float64; with `or_bytes`, images of 8 bits as they are, whose channels may be last.
    """
    _checks.require_tensor(x, "x")
    _checks.require_tensor(tables, "tables")
    tables = _checks.as_computed(tables, "tables")
    x = _checks.as_computed(x, "x", or_bytes)
    if x.dtype != torch.uint8:
        _checks.require_same_dtype(tables, "tables", x, "x")
    elif x.ndim in (3, 4) and x.shape[-3] not in (1, 3) and x.shape[-1] in (1, 3):
        x = x.movedim(-1, -3)
    _checks.require_same_device(tables, "tables", x, "x")
    x = as_batch(x)
    if (
        tables.ndim not in (3, 4)
        or tuple(tables.shape[-2:]) != (8, 8)
        or tables.shape[-3] not in ((2,) if x.shape[1] == 3 else (1, 2))
        or tables.shape[0] == 0
    ):
        raise ValueError(
            "tables must be (2, 8, 8): steps of Y, and of Cb and Cr; or (K, 2, 8, 8) for K rounds; "
            f"got {tuple(tables.shape)}"
        )
    return x, tables


def as_batch(x: Tensor) -> Tensor:
    """(N, 3, H, W) or (N, 1, H, W) of these or of one image."""
    if x.ndim not in (3, 4) or x.shape[-3] not in (1, 3):
        alpha = x.ndim in (3, 4) and 4 in (x.shape[-3], x.shape[-1])
        raise ValueError(
            f"x must be (N, 3, H, W) or (N, 1, H, W), or one image without N, got {tuple(x.shape)}"
            f"{'; drop the alpha of RGBA images' if alpha else ''}"
        )
    return x if x.ndim == 4 else x.unsqueeze(0)
