"""The JPEG layer: colour transform, block DCT, quantiser and back, differentiable in image and
tables."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Real

import torch
from torch import Tensor

from jsc import _checks
from jsc.functional import planes
from jsc.functional.dct import KERNEL_DEVICES, block_dct, block_idct
from jsc.functional.planes import SUBSAMPLINGS
from jsc.functional.quant import check_window, hardness_of, positive, quantize
from jsc.ops.jpeg import Jpeg
from jsc.ops.quant import MODES

PADDINGS = ("replicate", "zero")


def jpeg(
    x: Tensor,
    tables: Tensor,
    *,
    alpha: Tensor | float = 5.0,
    kappa: Tensor | float | None = None,
    quantizer: str = "soft",
    window: int | None = None,
    levels: int | None = None,
    subsampling: str = "4:4:4",
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    peak: float = 1.0,
    chroma_offset: float = 0.0,
    padding: str = "replicate",
    generator: torch.Generator | None = None,
) -> Tensor:
    """What a JPEG encoder and decoder do to an image, with tables and quantiser differentiable [1].

        out = P^-1( D' Q( D P(x) D' ) D )

    block by block, with P the level shift by 128 and RGB -> YCbCr [2], D the DCT matrix of
    :func:`block_dct` and Q :func:`soft_quantize`.

    Parameters
    ----------
    x : Tensor, (N, 3, H, W) RGB or (N, 1, H, W) grey, float32 or float64, any H and W, any strides
        In [0, peak], then normalised with `mean` and `std` if those are given.
    tables : Tensor, (2, 8, 8) or (K, 2, 8, 8), dtype of `x`, > 0; for grey images 1 in place of 2
        does
        Quantisation steps of Y and of Cb and Cr, natural order, in grey levels of an 8-bit image
        whatever the peak. Entries below 1e-5 act as 1e-5, and still receive gradients that would
        raise them. K tables are K rounds of the quantiser, one after the other between one DCT and
        one inverse: Q_K(... Q_1(z)).
    alpha, kappa : float, or Tensor broadcastable to `tables`
        Sharpness per squared grey level; or hardness kappa = alpha q^2, which replaces alpha when
        given. (K, 1, 1, 1) is one number a round.
    quantizer : str
        "soft"    the mean of the levels, see :func:`soft_quantize`
        "hard"    rounding, ties to even; derivative 0 in x
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
    Tensor, shape and dtype of `x`, contiguous. Not clipped to [0, peak] and not rounded.

    Raises
    ------
    TypeError   if an argument is of the wrong type or dtype.
    ValueError  if a shape does not fit or an option does not exist.

    Notes
    -----
    Gradient: x, tables, alpha or kappa. Second derivatives are computed in plain torch, slowly;
    forward mode is refused. `torch.compile(fullgraph=True)`, `torch.export` and `torch.func` take
    the layer as it is; `torch.vmap` calls it once for each element, so prefer a batch of images.
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
    _checks.require_tensor(x, "x")
    _checks.require_tensor(tables, "tables")
    x, tables = _checks.autocast_to_float32(x), _checks.autocast_to_float32(tables)
    _checks.require_kernel_dtype(x, "x")
    _checks.require_same_dtype(tables, "tables", x, "x")
    _checks.require_same_device(tables, "tables", x, "x")
    require_shapes(x, tables)
    require_options(quantizer, subsampling, padding, peak, chroma_offset)
    window, levels = check_window(window, levels)
    peak, chroma_offset = float(peak), float(chroma_offset)
    channels = x.shape[1]
    means, stds = normalisation(mean, std, channels)
    q = positive(tables)
    hardness = hardness_of(q, alpha if kappa is None else None, kappa, x)
    hardness = hardness.expand(q.shape)
    if channels == 1:
        q, hardness = q.narrow(-3, 0, 1), hardness.narrow(-3, 0, 1)
    if q.ndim == 4 and len(q) == 1:
        q, hardness = q[0], hardness[0]
    fused = (subsampling == "4:4:4" or channels == 1) and quantizer != "sample" and q.ndim == 3
    # sizes last: traced, the comparison becomes a guard
    if (
        fused
        and x.device.type in KERNEL_DEVICES
        and (padding == "replicate" or (x.shape[2] % 8 == 0 and x.shape[3] % 8 == 0))
    ):
        options = (
            MODES[quantizer],
            window or 0,
            levels or 0,
            means,
            stds,
            peak,
            chroma_offset,
        )
        return Jpeg.call(x, q, hardness, options)
    return _step_by_step(
        x,
        q,
        hardness,
        quantizer,
        window,
        levels,
        subsampling,
        means,
        stds,
        peak,
        chroma_offset,
        padding,
        generator,
    )


def _step_by_step(
    x: Tensor, q: Tensor, kappa: Tensor, quantizer: str, window: int | None, levels: int | None,
    subsampling: str, mean: list[float], std: list[float], peak: float, chroma_offset: float,
    padding: str, generator: torch.Generator | None,
) -> Tensor:  # fmt: skip
    """q and kappa: (tables, 8, 8), or (rounds, tables, 8, 8)."""
    if x.numel() == 0:
        return x * q.sum()  # keeps the graph
    out = []
    parts = planes.split(x, subsampling, mean, std, peak, chroma_offset, padding)
    for c, plane in enumerate(parts):
        step, hardness = (t[..., c, :, :].reshape(-1, 8, 8) for t in (q, kappa))
        if len(step) == 1 and quantizer != "sample" and x.device.type in KERNEL_DEVICES:
            # Grey images, but for the level shift: it is done already, and mean 128 undoes it.
            options = (MODES[quantizer], window or 0, levels or 0, [128.0], [1.0], 255.0, 0.0)
            grey = plane.reshape(-1, 1, *plane.shape[2:])
            out.append(Jpeg.call(grey, step, hardness, options).view(plane.shape))
            continue
        z = block_dct(plane)
        for steps, sharpness in zip(step, hardness, strict=True):
            noise, mode = None, quantizer
            if quantizer == "sample":
                noise, mode = _uniform_like(z, generator), "soft"
            z = quantize(z, steps, sharpness, mode, window, levels, noise)
        out.append(block_idct(z))
    return planes.join(out, x.shape[2:], subsampling, mean, std, peak, chroma_offset)


def _uniform_like(z: Tensor, generator: torch.Generator | None) -> Tensor:
    if generator is None:  # `rand` does not take symbolic sizes together with `generator=None`
        return torch.rand_like(z)
    return torch.rand(z.shape, generator=generator, dtype=z.dtype, device=z.device)


def require_shapes(x: Tensor, tables: Tensor) -> None:
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ValueError(f"x must be (N, 3, H, W) or (N, 1, H, W), got {tuple(x.shape)}")
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


def require_options(
    quantizer: str, subsampling: str, padding: str, peak: float, chroma_offset: float
) -> None:
    for value, name, known in (
        (quantizer, "quantizer", tuple(MODES)),
        (subsampling, "subsampling", tuple(SUBSAMPLINGS)),
        (padding, "padding", PADDINGS),
    ):
        if not isinstance(value, str) or value not in known:
            raise ValueError(
                f"{name} must be one of {', '.join(known)}; got {_checks.shown(value)}"
            )
    require_peak(peak)
    _checks.number(chroma_offset, "chroma_offset")


def require_peak(peak: float) -> None:
    if not _checks.number(peak, "peak") > 0:
        raise ValueError(
            "peak must be positive: 1 for images in [0, 1], 255 for [0, 255]; "
            f"got {_checks.shown(peak)}"
        )


def normalisation(
    mean: float | Sequence[float] | None, std: float | Sequence[float] | None, channels: int
) -> tuple[list[float], list[float]]:
    """Mean and standard deviation of each channel."""
    means, stds = per_channel(mean, "mean", channels, 0.0), per_channel(std, "std", channels, 1.0)
    if not all(s > 0 for s in stds):
        raise ValueError(f"std must be positive, got {_checks.shown(std)}")
    return means, stds


def per_channel(
    value: float | Sequence[float] | None, name: str, channels: int, default: float
) -> list[float]:
    if value is None:
        return [default] * channels
    if isinstance(value, (int, float, Real)):
        return [_checks.number(value, name)] * channels
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence) or len(value) != channels:
        raise (ValueError if isinstance(value, (tuple, list)) else TypeError)(
            f"{name} must be a number or {channels} numbers, one per channel, "
            f"got {_checks.shown(value)}"
        )
    return [_checks.number(v, name) for v in value]
