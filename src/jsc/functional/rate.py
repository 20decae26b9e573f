"""The bits that an image costs after quantisation, as a differentiable number."""

from __future__ import annotations

import torch
from torch import Tensor

from jsc.functional import planes
from jsc.functional.jpeg import checked
from jsc.functional.options import JpegOptions, Scale
from jsc.functional.quant import hardness_of, positive, quantize
from jsc.ops._torch_jpeg import from_bytes
from jsc.ops.quant import MODES
from jsc.ops.rate import LevelEntropy
from jsc.typing import ImagePadding, Quantizer, Subsampling


def jpeg_rate(
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
) -> Tensor:
    """Bits per pixel of the quantised coefficients of a batch: their zero-order entropy.

        R = 1 / (N H W) sum_c B_c sum_m H(c, m),    H = -sum_k P(k) log2 P(k),
        P(k) = 1 / B_c sum_b P(k | z[c, m, b])

    over planes c (Y, Cb, Cr, each by itself), frequencies m and the B_c blocks that plane c has in
    the batch, fewer where chroma is subsampled. P(k | z) ~ exp(-kappa (z / q - k)^2) is the
    distribution whose mean is the soft quantiser, and from which "sample" draws [1, 2].

    Parameters
    ----------
    x, tables, ...
        The same as those of :func:`jsc.functional.jpeg`, so that both can be called with the same
        options.
    quantizer : str
        "soft", "sample"  as above
        "hard"            P(k | z) is 1 at the nearest level; no gradient
        "ste"             the value of "hard", the gradient of "soft" with the given alpha or kappa
    levels : int, optional
        Levels beyond it are counted as `levels`, as the sampling quantiser cuts them.

    Returns
    -------
    Tensor, scalar, bits per pixel; dtype of `x`, of half precision float32. 0 for an empty batch,
    NaN if a coefficient is not finite.

    Raises
    ------
    TypeError, ValueError  as :func:`jsc.functional.jpeg`.
    ValueError  if steps are so fine that the batch spreads over more than 6.7e7 levels.

    Notes
    -----
    An estimate: real files code DC differences, runs of zeros and whole bits. Like every plug-in
    entropy it is too low for few blocks: give it a batch, not a thumbnail. The rate of a batch is
    that of one code for all of its images. Below kappa = 1 P(k | z) is wide, and its rate well
    above that of rounding.
    Of several rounds the levels of the last are counted.
    To train tables, take a kappa of about 8: at quality 50 its gradient is within 8 % of finite
    differences of the rounded rate but for DC and the last diagonals; at kappa = 1 it is 2.5 to 6
    times too small at high frequencies.
    Gradient: x, tables, alpha or kappa, in closed form (jsc/ops/rate.py); first derivatives.
    Accuracy: levels further than 1 / 2 + 4 / sqrt(kappa) (float64: 5.3) from z / q are left out,
    1e-7 (1e-12) of P. Below kappa = 0.04 runs of levels are merged, exact to 1e-5 bits a
    coefficient; given `levels` only below 0.01, and then approximate near the last level. kappa
    below 1e-8 acts as 1e-8.
    Cost: 2 w + 1 levels a coefficient, w = 1 / 2 + 4 / sqrt(kappa), each an exponential and an
    addition into a histogram, in plain torch, which takes many times as long as the layer itself. A
    part of the batch often does. Memory: a copy of the coefficients and their gradient.

    References
    ----------
    [1] E.-H. Yang, S. M. Hamidi, "Coded Deep Learning", arXiv:2501.09849.
    [2] K. Zheng, A. H. Salamah, M. Chen, E.-H. Yang, "Learned JPEG Compression for DNN Vision",
        arXiv:2606.16185.

    Examples
    --------
    Train tables for few bits and little change; `loss + lam * rate` works the same for a network:

    >>> x = torch.rand(8, 3, 64, 64)
    >>> layer = jsc.nn.JPEG.from_quality(75, kappa=2.0)
    >>> loss = (layer(x) - x).square().mean() + 1e-3 * layer.rate(x)
    >>> loss.backward()
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
    return jpeg_rate_with(options, x, tables, alpha, kappa)


def jpeg_rate_with(
    options: JpegOptions,
    x: Tensor,
    tables: Tensor,
    alpha: Tensor | float = 5.0,
    kappa: Tensor | float | None = None,
) -> Tensor:
    """:func:`jpeg_rate` with options that are checked already."""
    x, tables = checked(x, tables, or_bytes=True)
    if x.dtype == torch.uint8:
        x = from_bytes(x, options.settings(x.shape[1]), tables.dtype)
    q = positive(tables)
    hardness = hardness_of(q, alpha if kappa is None else None, kappa, x).expand(q.shape)
    if x.numel() == 0:
        return x.sum() + 0 * q.sum()  # the result stays part of the graph of x and q
    bits = x.new_zeros(())
    mode = "soft" if options.quantizer == "sample" else options.quantizer
    window, levels = options.window, options.levels
    q, hardness = (t.reshape(-1, *t.shape[-3:]) for t in (q, hardness))  # (rounds, tables, 8, 8)
    for c, z in enumerate(planes.coefficients(x, options)):
        for step, sharp in zip(q[:-1, c], hardness[:-1, c], strict=True):
            z = quantize(z, step, sharp, mode, window, levels)
        count = z.shape[1]
        rows = z.permute(1, 4, 5, 0, 2, 3).reshape(64 * count, -1)
        entropies = LevelEntropy.apply(
            rows,
            q[-1, c].reshape(64).repeat(count),
            hardness[-1, c].reshape(64).repeat(count),
            (MODES[mode], window or 0, levels or 0),
        )
        bits = bits + rows.shape[1] * entropies.sum()
    return bits / (x.shape[0] * x.shape[2] * x.shape[3])
