"""The JPEG layer: colour transform, block DCT, quantiser and back, differentiable in image and
tables."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from jsc import _checks
from jsc.functional import planes
from jsc.functional.dct import block_dct, block_idct, kernel_runs
from jsc.functional.options import JpegOptions, Scale
from jsc.functional.quant import hardness_of, positive, quantize
from jsc.ops.jpeg import Jpeg
from jsc.ops.quant import MODES
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
    tables : Tensor, (2, 8, 8) or (K, 2, 8, 8), > 0; for grey images 1 in place of 2 does
        In the precision of `x`; float16, bfloat16 and float32 go with each other.
        Quantisation steps of Y and of Cb and Cr, natural order, in grey levels of an 8-bit image
        whatever the peak. Entries below 1e-5 act as 1e-5, and still receive gradients that would
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
    torch's own precision-sensitive functions.

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
    At 4:4:4 the layer is one pass over memory, forward and backward; only x is kept in between.
    Other subsamplings and zero padding of partial blocks run plane by plane, "sample" and several
    rounds step by step; so does everything on devices other than the CPU, in plain torch.
    In one pass, the same bits for any number of threads and any split of the batch (tables'
    gradients: of threads only).
    A NaN stays in its block.

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
    images, tables = checked(x, tables)
    y = _computed(options, images, tables, alpha, kappa, generator).to(_checks.result_dtype(x))
    # A library would take a tensor for channels-last that has channels, and them innermost.
    last = images.shape[1] > 1 and images.stride(1) == 1 and not images.is_contiguous()
    y = y.contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    return y if x.ndim == 4 else y.squeeze(0)


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
    hardness = hardness_of(q, alpha if kappa is None else None, kappa, x)
    hardness = hardness.expand(q.shape)
    if channels == 1:
        q, hardness = q.narrow(-3, 0, 1), hardness.narrow(-3, 0, 1)
    if q.ndim == 4 and len(q) == 1:
        q, hardness = q[0], hardness[0]
    means, stds = options.normalisation(channels)
    one_pass = (
        (options.subsampling == "4:4:4" or channels == 1)
        and options.quantizer != "sample"
        and q.ndim == 3
    )
    # The sizes come last: in a traced program their comparison becomes a guard.
    if (
        one_pass
        and kernel_runs(x)
        and (options.padding == "replicate" or (x.shape[2] % 8 == 0 and x.shape[3] % 8 == 0))
    ):
        scales = (means, stds, options.peak, options.chroma_offset)
        return Jpeg.call(x, q, hardness, (*_quantizer_arguments(options), *scales))
    return _step_by_step(options, x, q, hardness, generator)


def checked(x: Tensor, tables: Tensor) -> tuple[Tensor, Tensor]:
    """Images and tables that the layer takes, as it computes with them: (N, C, H, W), and in
    float32 or float64."""
    _checks.require_tensor(x, "x")
    _checks.require_tensor(tables, "tables")
    x, tables = _checks.as_computed(x, "x"), _checks.as_computed(tables, "tables")
    _checks.require_same_dtype(tables, "tables", x, "x")
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
        raise ValueError(
            f"x must be (N, 3, H, W) or (N, 1, H, W), or one image without N, got {tuple(x.shape)}"
        )
    return x if x.ndim == 4 else x.unsqueeze(0)


def _quantizer_arguments(options: JpegOptions) -> tuple[int, int, int]:
    """The options of the quantiser as operators take them: 0 stands for None."""
    return MODES[options.quantizer], options.window or 0, options.levels or 0


def _step_by_step(
    options: JpegOptions,
    x: Tensor,
    q: Tensor,
    kappa: Tensor,
    generator: torch.Generator | None,
) -> Tensor:
    """q and kappa: (tables, 8, 8), or (rounds, tables, 8, 8)."""
    if x.numel() == 0:
        return x * q.sum()  # the result stays part of the graph of x and q
    sample = options.quantizer == "sample"
    mode = "soft" if sample else options.quantizer
    # A plane is a grey image, but for the level shift: `split` has done it, and mean 128 undoes it.
    grey_image: Any = (*_quantizer_arguments(options), [128.0], [1.0], 255.0, 0.0)
    out = []
    for c, plane in enumerate(planes.split(x, options)):
        step, hardness = (t[..., c, :, :].reshape(-1, 8, 8) for t in (q, kappa))
        if len(step) == 1 and not sample and kernel_runs(x):
            grey = plane.reshape(-1, 1, *plane.shape[2:])
            out.append(Jpeg.call(grey, step, hardness, grey_image).view(plane.shape))
            continue
        z = block_dct(plane)
        for steps, sharpness in zip(step, hardness, strict=True):
            noise = _uniform_like(z, generator) if sample else None
            z = quantize(z, steps, sharpness, mode, options.window, options.levels, noise)
        out.append(block_idct(z))
    return planes.join(out, x.shape[2:], options)


def _uniform_like(z: Tensor, generator: torch.Generator | None) -> Tensor:
    if generator is None:  # `rand` does not take symbolic sizes together with `generator=None`
        return torch.rand_like(z)
    return torch.rand(z.shape, generator=generator, dtype=z.dtype, device=z.device)
